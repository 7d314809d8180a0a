"""What of one attempt waits in the spool for the broker, and the bound past which whoever makes more has to wait."""

import asyncio


class Backlog:
    """Bytes of an attempt's logs and artifacts that are spooled and not confirmed yet."""

    def __init__(self, limit: int) -> None:
        """`limit`: bytes past which `room` waits."""
        self._limit = limit
        self._waiting = 0
        self._fewer = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Spooled bytes that are not confirmed."""
        return self._waiting

    def spooled(self, count: int) -> None:
        """`count` bytes have been spooled."""
        self._waiting += count

    def confirmed(self, count: int) -> None:
        """`count` spooled bytes have reached the broker, or will never be sent."""
        self._waiting -= count
        self._fewer.set()

    async def room(self) -> None:
        """Wait while the broker is too far behind."""
        while self._waiting > self._limit:
            self._fewer.clear()
            await self._fewer.wait()
