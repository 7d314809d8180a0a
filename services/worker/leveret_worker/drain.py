"""An order to drain: no more jobs until it is revoked, and an end to what runs when its limit is over."""

import asyncio
from collections.abc import Callable

from leveret_runtime.waits import pause


class DrainOrder:
    """The dispatcher's order as it stands. A later one takes the place of an earlier one, with its own limit."""

    def __init__(self) -> None:
        #: Whether there is one.
        self.given = False
        #: When its limit is over, on the loop's clock; None: there is none, or it has been seen to.
        self._until: float | None = None
        self._changed = asyncio.Event()

    def give(self, limit: float) -> None:
        """From now on no more jobs; in `limit` seconds what runs is to end."""
        self.given = True
        self._until = asyncio.get_running_loop().time() + limit
        self._changed.set()

    def revoke(self) -> None:
        """Jobs are welcome again, and what runs may go on."""
        self.given = False
        self._until = None
        self._changed.set()

    async def see_to(self, end: Callable[[], None]) -> None:
        """Call `end` whenever a limit is over. Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            if self._until is None:
                await self._changed.wait()
            elif (left := self._until - loop.time()) > 0:
                await pause(left, self._changed)
            else:
                self._until = None
                end()
