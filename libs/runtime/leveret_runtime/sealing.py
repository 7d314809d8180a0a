"""Sealed boxes (libsodium, X25519): values that only the holder of a private key can read. Pure; base64 outside.

Errors never show a value or a key.
"""

import base64
import binascii

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

#: Bytes of a public key and of a seed.
KEY = 32


class SealError(ValueError):
    """A value can't be sealed, or a box not be opened."""


class KeyPair:
    """A key pair whose public half is for all to know."""

    def __init__(self, seed: bytes | None = None) -> None:
        """`seed`: 32 bytes that always make the same pair; None makes a new one, which is gone with this object."""
        self._private = PrivateKey.generate() if seed is None else PrivateKey.from_seed(seed)

    @property
    def public_key(self) -> str:
        """What others seal to: base64."""
        return base64.b64encode(bytes(self._private.public_key)).decode()

    def open(self, sealed: str) -> bytes:
        """Give the value that was sealed to this pair. Raises SealError."""
        try:
            return SealedBox(self._private).decrypt(unbase64(sealed))
        except CryptoError:
            raise SealError("it was not sealed to this key, or was changed on its way") from None


def seal(value: bytes, public_key: str) -> str:
    """Seal `value` to a public key. Raises SealError where that is no key."""
    key = unbase64(public_key)
    if len(key) != KEY:
        raise SealError(f"a public key has {KEY} bytes, this one has {len(key)}")
    try:
        return base64.b64encode(SealedBox(PublicKey(key)).encrypt(value)).decode()
    except CryptoError:
        raise SealError("this public key is a point that nothing can be sealed to") from None


def unbase64(text: str) -> bytes:
    """Decode strict base64. Raises SealError, without showing the text."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SealError("it is not base64") from None
