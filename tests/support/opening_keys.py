"""Looks in a folder for anything that opens what was sealed to a public key."""

import base64
import binascii
import re
from collections.abc import Iterator
from pathlib import Path

from nacl.public import PrivateKey

KEY = 32
_HEX = re.compile(rb"[0-9A-Fa-f]{64,}")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{43,}")


def opening_keys(folder: Path, public_key: str) -> list[Path]:
    """The files below `folder` that hold the private half of `public_key` (base64), or the seed of the pair.

    Any 32 bytes may be it: as they lie there, or as a run of hexadecimal digits or of base64 tells them.
    """
    wanted = base64.b64decode(public_key)
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and _holds(path.read_bytes(), wanted)]


def _holds(content: bytes, wanted: bytes) -> bool:
    windows = {text[at : at + KEY] for text in _readings(content) for at in range(len(text) - KEY + 1)}
    return any(
        bytes(key.public_key) == wanted
        for window in windows
        for key in (PrivateKey(window), PrivateKey.from_seed(window))
    )


def _readings(content: bytes) -> Iterator[bytes]:
    """The content as it is, and what its encoded runs say, wherever in a run the encoded text begins."""
    yield content
    for run in _HEX.findall(content):
        for start in range(2):
            digits = run[start:]
            yield binascii.unhexlify(digits[: len(digits) // 2 * 2])
    for run in _BASE64.findall(content):
        for start in range(4):
            digits = run[start:].translate(bytes.maketrans(b"-_", b"+/"))
            # of an unfinished group of four what is whole counts; one digit alone is no byte
            digits = digits[: len(digits) - (len(digits) % 4 == 1)]
            yield base64.b64decode(digits + b"=" * (-len(digits) % 4))
