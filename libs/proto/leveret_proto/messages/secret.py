"""Secrets over `leveret.commands` (routing word `secrets`), and their sealed form in a grant.

A secret's value travels sealed only (libsodium sealed box, X25519): to the dispatcher's public key on its way in, to
the public key of the claiming session on its way out. Kinds, names and defaults are those of builds.sr.ht.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from leveret_proto.base import Message, Part, Time, Token

#: A name or a UUID, as a manifest's `secrets` has it.
SecretName = Annotated[str, Field(min_length=1, max_length=511, pattern=r"^[^\x00-\x1f\x7f]+$")]
#: An X25519 public key, base64.
PublicKey = Annotated[str, Field(min_length=44, max_length=44)]
SecretKind = Literal["ssh-key", "pgp-key", "file"]
#: The most bytes a secret's value may have.
MAX_SECRET = 64 * 1024
#: Base64 of a sealed value: what MAX_SECRET and the box's 48 bytes become.
Sealed = Annotated[str, Field(max_length=(MAX_SECRET + 48 + 2) // 3 * 4)]
Mode = Annotated[int, Field(ge=0, le=0o777)]
SecretPath = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]+$")]


class AskSecretsKey(Message):
    """Ask for the public key that new secrets are sealed to."""

    TYPE: ClassVar[str] = "command.secrets-key.v1"


class AddSecret(Message):
    """Keep a secret for the owner. The same command (by its `message_id`) keeps it once.

    Attributes:
        name: unique among the owner's; None: known by its UUID alone.
        path: for a file: absolute, or from the build user's home (`~/` or nothing before it).
        mode: for a file: its permission bits.
        sealed_to: the public key used, so that a key replaced meanwhile is a clear error.
        sealed: the value.
    """

    TYPE: ClassVar[str] = "command.secrets-add.v1"

    kind: SecretKind
    name: SecretName | None = None
    path: SecretPath | None = None
    mode: Mode | None = None
    sealed_to: PublicKey
    sealed: Sealed


class ListSecrets(Message):
    """Give the owner's secrets, without their values."""

    TYPE: ClassVar[str] = "command.secrets-list.v1"


class RemoveSecret(Message):
    """Forget a secret, named by its name or its UUID."""

    TYPE: ClassVar[str] = "command.secrets-rm.v1"

    secret: SecretName


class SecretView(Part):
    """A secret without its value."""

    uuid: Token
    kind: SecretKind
    name: SecretName | None = None
    path: SecretPath | None = None
    mode: Mode | None = None
    added_at: Time


class SecretsKeyReply(Message):
    """Answer to AskSecretsKey."""

    TYPE: ClassVar[str] = "reply.secrets-key.v1"

    public_key: PublicKey


class SecretsReply(Message):
    """Answer to AddSecret (the one added), RemoveSecret (the one removed) and ListSecrets."""

    TYPE: ClassVar[str] = "reply.secrets.v1"

    secrets: tuple[SecretView, ...]


class SealedSecret(Part):
    """A secret in a grant: `sealed` is the value, sealed to the session's public key."""

    uuid: Token
    kind: SecretKind
    name: SecretName | None = None
    path: SecretPath | None = None
    mode: Mode | None = None
    sealed: Sealed
