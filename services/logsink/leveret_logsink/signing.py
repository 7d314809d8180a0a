"""Links to private jobs: the path is signed together with the time until which it is good. Pure.

A link is `<path>?expires=<seconds since 1970>&signature=<base64url of HMAC-SHA-256>`. Each signs one path alone, so who
is given one log of a private job has nothing else of it.
"""

import base64
import binascii
import hashlib
import hmac
import re
from typing import Literal

#: What the key signs nothing else with.
_PURPOSE = b"leveret.link.v1"
_KEY_BYTES = 32
_EXPIRES = re.compile(r"[1-9][0-9]{0,11}", re.ASCII)

Verdict = Literal["good", "expired", "bad"]


class Signer:
    """Signs paths and checks signed ones."""

    def __init__(self, key: str) -> None:
        """`key`: base64 of 32 random bytes, the same for every logsink of an installation. Raises ValueError."""
        try:
            self._key = base64.b64decode(key.strip(), validate=True)
        except binascii.Error:
            raise ValueError("not base64") from None
        if len(self._key) != _KEY_BYTES:
            raise ValueError(f"{len(self._key)} bytes, expected {_KEY_BYTES}")

    def query(self, path: str, expires: int) -> str:
        """Give the query that makes `path` good until `expires`, in seconds since 1970."""
        return f"?expires={expires}&signature={self._signature(path, str(expires))}"

    def judge(self, path: str, expires: str, signature: str, now: float) -> Verdict:
        """Say whether a request for `path` was signed by this key. Only one that was can be `expired`."""
        told = _EXPIRES.fullmatch(expires)
        # compared in any case, so that no answer comes sooner than another
        same = hmac.compare_digest(self._signature(path, told[0] if told else "").encode(), _bytes(signature))
        if not same or not told:
            return "bad"
        return "good" if now < int(told[0]) else "expired"

    def _signature(self, path: str, expires: str) -> str:
        signed = b"\n".join((_PURPOSE, expires.encode(), path.encode()))
        return base64.urlsafe_b64encode(hmac.digest(self._key, signed, hashlib.sha256)).rstrip(b"=").decode()


def same_word(one: str, other: str) -> bool:
    """Compare two texts in a time that does not tell where they differ."""
    return hmac.compare_digest(_bytes(one), _bytes(other))


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
