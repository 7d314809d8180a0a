"""Signatures of webhooks, as builds.sr.ht makes them: Ed25519 (RFC 8032) over the body followed by the nonce's text."""

import base64
import binascii
import secrets

from nacl.signing import SigningKey

#: Bytes.
SEED = 32
NONCE = 8


class Signer:
    """Signs bodies with one key."""

    def __init__(self, seed: str) -> None:
        """`seed`: base64 of 32 random bytes. Raises ValueError, without showing it."""
        try:
            raw = base64.b64decode(seed.strip(), validate=True)
        except binascii.Error:
            raise ValueError("the signing key is not base64") from None
        if len(raw) != SEED:
            raise ValueError(f"the signing key has {len(raw)} bytes; it must be base64 of {SEED} random bytes")
        self._key = SigningKey(raw)

    @property
    def public_key(self) -> str:
        """What receivers verify with: base64."""
        return base64.b64encode(bytes(self._key.verify_key)).decode()

    def headers(self, body: bytes, nonce: str) -> dict[str, str]:
        """Give the headers that prove `body`; `nonce` must be a new one for every try (see `new_nonce`)."""
        signature = self._key.sign(body + nonce.encode("ascii")).signature
        return {"X-Payload-Nonce": nonce, "X-Payload-Signature": base64.b64encode(signature).decode()}


def new_nonce() -> str:
    """Make a nonce: 16 hexadecimal digits."""
    return secrets.token_hex(NONCE)


def new_seed() -> str:
    """Make a signing key for the configuration: base64 of 32 random bytes."""
    return base64.b64encode(secrets.token_bytes(SEED)).decode()
