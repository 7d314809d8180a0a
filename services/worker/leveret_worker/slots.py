"""Slots and their one-use tokens. Pure: which tokens a session may name, and whether a grant's token is good."""

from collections.abc import Callable


class Slots:
    """`count` slots. A free slot has one token; a token is good for one grant, once."""

    def __init__(self, count: int, new_token: Callable[[], str]) -> None:
        self._new_token = new_token
        self._free: dict[str, None] = dict.fromkeys(new_token() for _ in range(count))
        self._closed = False
        self.count = count

    @property
    def busy(self) -> int:
        """Slots that are not free."""
        return self.count - len(self._free)

    @property
    def tokens(self) -> tuple[str, ...]:
        """Tokens of the free slots; none while closed."""
        return () if self._closed else tuple(self._free)

    def take(self, token: str) -> bool:
        """Use up `token`; False where it is not a free slot's, or they are closed."""
        if token not in self._free:
            return False
        del self._free[token]
        if self._closed:
            self.free()  # the token was good for this one grant: its slot needs another
        return not self._closed

    def free(self) -> str:
        """A slot has become free: give its new token."""
        token = self._new_token()
        self._free[token] = None
        return token

    def close(self) -> None:
        """Name no token any more and take none (draining)."""
        self._closed = True

    def open(self) -> None:
        """Name and take tokens again."""
        self._closed = False
