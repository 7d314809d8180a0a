"""The installation's secrets key: what it opens, and how values rest in the database. Pure.

One key of 32 bytes, the same for every dispatcher of an installation. Two keys are derived from it (BLAKE2b, keyed and
personalised): an X25519 pair that submitters seal values to, and a key that values are encrypted with at rest
(XChaCha20-Poly1305), each bound to its secret's UUID and owner, so that rows can't be swapped.
"""

import hashlib

from nacl.exceptions import CryptoError
from nacl.secret import Aead

from leveret_runtime.sealing import KEY, KeyPair, SealError, unbase64

#: BLAKE2b's personalisation, at most 16 bytes: one a purpose.
_SUBMITTED = b"leveret-submit"
_AT_REST = b"leveret-at-rest"
#: What people are told where the installation has none.
NO_KEY = "this installation keeps no secrets: its operator has to give the dispatcher a secrets_key (docs/operating.md)"


class Keyring:
    """Opens what was sealed to the installation, and locks values away."""

    def __init__(self, key: str) -> None:
        """`key`: base64 of 32 random bytes. Raises SealError, without showing it."""
        raw = unbase64(key.strip())
        if len(raw) != KEY:
            raise SealError(f"the secrets key has {len(raw)} bytes; it must be base64 of {KEY} random bytes")
        self._submitted = KeyPair(_derived(raw, _SUBMITTED))
        self._at_rest = Aead(_derived(raw, _AT_REST))

    @property
    def public_key(self) -> str:
        """What submitters seal to: base64."""
        return self._submitted.public_key

    def unseal(self, sealed: str) -> bytes:
        """Open a submitted value. Raises SealError."""
        return self._submitted.open(sealed)

    def lock(self, value: bytes, uuid: str, owner: str) -> bytes:
        """Encrypt a value for the database row of secret `uuid` of `owner`."""
        return bytes(self._at_rest.encrypt(value, _bound(uuid, owner)))

    def unlock(self, locked: bytes, uuid: str, owner: str) -> bytes:
        """Decrypt what `lock` gave for the same row. Raises SealError."""
        try:
            return self._at_rest.decrypt(locked, _bound(uuid, owner))
        except (CryptoError, ValueError):
            raise SealError("it was kept under another key, or its row was changed") from None


def _derived(key: bytes, purpose: bytes) -> bytes:
    return hashlib.blake2b(digest_size=KEY, key=key, person=purpose).digest()


def _bound(uuid: str, owner: str) -> bytes:
    # a UUID's text has a fixed length, so that no other pair makes the same bytes
    return f"{uuid} {owner}".encode()
