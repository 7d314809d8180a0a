"""Secrets on their last stretch: opened here, put where builds.sr.ht puts them in the guest.

Nothing of a value is said in a log or an error, and on this host none is written down.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import PurePosixPath

from leveret_guestapi import GuestError
from leveret_proto.messages import SealedSecret
from leveret_runtime.sealing import KeyPair, SealError
from leveret_worker.guests import Guest

#: Permission bits of a file that came without any.
DEFAULT_MODE = 0o600
#: Seconds for a command in the guest.
COMMAND_LIMIT = 60.0


class SecretNotPlaced(Exception):
    """A secret could not be put into the guest; the text has its name and says why."""


def called(secret: SealedSecret) -> str:
    """Give what people call a secret: its name, or its UUID where it has none."""
    return secret.name or secret.uuid


def opened(secrets: Iterable[SealedSecret], keys: KeyPair) -> list[bytes]:
    """Give the values of those that can be opened: what is to be masked. `place` tells of the others."""
    values: list[bytes] = []
    for secret in secrets:
        with suppress(SealError):
            values.append(keys.open(secret.sealed))
    return values


async def place(guest: Guest, secret: SealedSecret, keys: KeyPair, *, identity: bool = False) -> None:
    """Open a secret and put it into the guest.

    Args:
        keys: what it was sealed to.
        identity: for an SSH key: make it the one that ssh uses by itself.

    Raises:
        SecretNotPlaced: the guest would not take it, or it can't be opened.
        GuestApiError: contact with the guest is lost.
    """
    try:
        value = keys.open(secret.sealed)
        match secret.kind:
            case "ssh-key":
                await _place_ssh_key(guest, secret.uuid, value, identity)
            case "pgp-key":
                await _import_pgp_key(guest, value)
            case "file":
                await _place_file(guest, secret, value)
    except (GuestError, SealError) as error:
        raise SecretNotPlaced(f"secret {called(secret)}: {error}") from None
    except _Failed as failed:
        raise SecretNotPlaced(f"secret {called(secret)}: {failed}") from None


def path_in(home: str, path: str) -> str:
    """Give the absolute path in the guest of what is absolute, or counts from the build user's home."""
    return str(PurePosixPath(home, path.removeprefix("~/")))


class _Failed(Exception):
    pass


async def _place_ssh_key(guest: Guest, uuid: str, value: bytes, identity: bool) -> None:
    folder = f"{guest.profile.home}/.ssh"
    path = f"{folder}/{uuid}"
    await _run(guest, ["mkdir", "-p", "-m", "700", "--", folder])
    await guest.api.write_file(path, value, mode=0o600, user=guest.profile.user)
    if identity:
        # whatever the key's kind: of the names that ssh looks for, this is the one builds.sr.ht takes
        await _run(guest, ["ln", "-sf", "--", path, f"{folder}/id_rsa"])


async def _import_pgp_key(guest: Guest, value: bytes) -> None:
    try:
        await _run(guest, ["gpg", "--batch", "--quiet", "--import"], value)
    except GuestError as error:
        if error.errno == "ENOENT":
            raise _Failed("this guest has no gpg to import it with") from None
        raise


async def _place_file(guest: Guest, secret: SealedSecret, value: bytes) -> None:
    if secret.path is None:
        raise _Failed("it is a file, and came without a path")
    mode = DEFAULT_MODE if secret.mode is None else secret.mode
    path = path_in(guest.profile.home, secret.path)
    try:
        await guest.api.write_file(path, value, mode=mode, user=guest.profile.user)
    except GuestError as error:
        raise _Failed(f"{path}: {error}") from None


async def _run(guest: Guest, words: Sequence[str], value: bytes = b"") -> None:
    """Run a command as the build user, `value` on its standard input. Its words stay unsaid: they may repeat that."""
    profile = guest.profile
    ended = await guest.api.run(
        words, input=value, env=profile.environment, user=profile.user, cwd=profile.home, time_limit=COMMAND_LIMIT
    )
    if not ended.status.success:
        raise _Failed(f"{words[0]} ended with {ended.status}")
