"""Secrets on their way out: sealed to the installation's key before anything is sent."""

from pydantic import ValidationError

from leveret_client.errors import CommandRefused
from leveret_proto.envelope import describe
from leveret_proto.messages import MAX_SECRET, AddSecret, SecretKind
from leveret_runtime.sealing import SealError, seal


def sealed_for(
    public_key: str, value: bytes, kind: SecretKind, name: str | None, path: str | None, mode: int | None
) -> AddSecret:
    """Make the command that adds a secret. Raises CommandRefused, without showing the value."""
    if len(value) > MAX_SECRET:
        raise CommandRefused(f"the value has {len(value)} bytes, the most is {MAX_SECRET}")
    try:
        sealed = seal(value, public_key)
        return AddSecret(kind=kind, name=name, path=path, mode=mode, sealed_to=public_key, sealed=sealed)
    except ValidationError as error:
        raise CommandRefused(describe(error)) from None
    except SealError as error:
        raise CommandRefused(f"the installation's public key: {error}") from None
