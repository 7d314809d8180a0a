"""What a secret must be like, before it is kept. Pure: builds.sr.ht's kinds, names and loose look at keys.

Errors are for the person who adds a secret, and never show its value.
"""

from pathlib import PurePosixPath
from uuid import UUID

from leveret_proto.messages import MAX_SECRET, AddSecret

#: Bytes a name may have, as in a manifest (builds.sr.ht's rule).
NAME_BYTES = range(4, 512)
#: Permission bits of a file that says nothing: its owner's alone.
DEFAULT_MODE = 0o600
_SECRET_KEY_PACKET = 5


class BadSecret(ValueError):
    """The secret can't be kept; the text says why and what to do."""


def check_description(secret: AddSecret) -> None:
    """Check all but the value. Raises BadSecret."""
    if secret.name is not None:
        _check_name(secret.name)
    if secret.kind == "file":
        if secret.path is None:
            raise BadSecret("a file needs the path it gets in the guest")
        _check_path(secret.path)
    elif secret.path is not None or secret.mode is not None:
        raise BadSecret(f"only a file has a path and a mode, and this is a secret of kind {secret.kind}")


def checked_value(secret: AddSecret, value: bytes) -> bytes:
    """Give the value as it is kept. Raises BadSecret."""
    if not value:
        raise BadSecret("the value is empty")
    if len(value) > MAX_SECRET:
        raise BadSecret(f"the value has {len(value)} bytes, the most is {MAX_SECRET}")
    if secret.kind == "ssh-key":
        return _ssh_key(value)
    if secret.kind == "pgp-key" and not _is_pgp_key(value):
        raise BadSecret("this is no PGP private key; export one with gpg --export-secret-keys")
    return value


def uuid_of(name: str) -> str | None:
    """Give the canonical text of the UUID that `name` is, or None where it is a name."""
    try:
        parsed = str(UUID(name))
    except ValueError:
        return None
    return parsed if parsed == name.lower() else None


def _check_name(name: str) -> None:
    if len(name.encode()) not in NAME_BYTES:
        raise BadSecret(f"a name has {NAME_BYTES.start} to {NAME_BYTES.stop - 1} bytes, this one {len(name.encode())}")
    if uuid_of(name) is not None:
        raise BadSecret("a name can't be a UUID: every secret has one of its own besides")


def _check_path(path: str) -> None:
    relative = path.removeprefix("~/")
    if any(not letter.isprintable() for letter in path):
        raise BadSecret("the path has control characters")
    if relative.startswith("~"):
        raise BadSecret("the path can begin with ~/, for the build user's home, but with no other user's")
    if path != relative and relative.startswith("/"):
        raise BadSecret("the path begins with ~//: write ~/ for the build user's home, or / for an absolute path")
    if ".." in PurePosixPath(relative).parts:
        raise BadSecret("the path has a part that is '..'")
    if relative.endswith(("/", "/.")) or relative in ("", "."):
        raise BadSecret("the path names a directory; give the file's own path")


def _ssh_key(value: bytes) -> bytes:
    """OpenSSH takes a key only with plain line ends and an end of the last line."""
    lines = value.strip().splitlines()
    first, last = lines[0] if lines else b"", lines[-1] if lines else b""
    if not (first.startswith(b"-----BEGIN ") and first.rstrip().endswith(b"PRIVATE KEY-----")):
        raise BadSecret("this is no SSH private key: its first line is not '-----BEGIN … PRIVATE KEY-----'")
    if not last.startswith(b"-----END "):
        raise BadSecret("this SSH private key is cut: its last line is not '-----END … PRIVATE KEY-----'")
    return b"\n".join(line.rstrip() for line in lines) + b"\n"


def _is_pgp_key(value: bytes) -> bool:
    """Armoured, or binary that begins with a secret key's packet (RFC 4880, section 4.2)."""
    if value.lstrip().startswith(b"-----BEGIN PGP PRIVATE KEY BLOCK-----"):
        return True
    head = value[0]
    tag = head & 0x3F if head & 0x40 else (head & 0x3C) >> 2
    return bool(head & 0x80) and tag == _SECRET_KEY_PACKET
