"""A log whose secrets are masked before a byte of it is spooled. Nothing waits longer than DELAY to be seen."""

import asyncio

from leveret_proto.messages import LogDigest
from leveret_worker.logs import SpooledLog
from leveret_worker.masking import Mask

#: Seconds that a byte is held back at most, because it may begin a secret.
DELAY = 0.1


class MaskedOutput:
    """Where a build writes one log: its guest's output, and the worker's own lines."""

    def __init__(self, log: SpooledLog, mask: Mask) -> None:
        self._log = log
        self._masker = mask.stream()
        #: Bytes that came, and those that had when the timer was set.
        self._came = 0
        self._came_before = 0
        self._timer: asyncio.TimerHandle | None = None
        self._failure: OSError | None = None

    async def append(self, data: bytes) -> None:
        """Add what a guest printed; wait while the broker is too far behind. Raises OSError: the spool is full."""
        if self._failure is not None:
            raise self._failure
        out = self._masker.feed(data)
        self._came += len(data)
        self._watch()
        await self._log.append(out)

    async def say(self, line: str) -> None:
        """Add a line of the worker's own."""
        await self.append(f"[leveret] {line}\n".encode())

    def finish(self) -> None:
        """Nothing more will be added."""
        if self._timer is not None:
            self._timer.cancel()
        try:
            self._log.write(self._masker.end())
        finally:  # a full disk is told, and what is there is delivered
            self._log.finish()

    def digest(self) -> LogDigest:
        """Length and SHA-256 of what has been spooled."""
        return self._log.digest()

    def _watch(self) -> None:
        """Look at what is held back in half the delay, and again in the other half: so none waits longer."""
        if self._masker.held and self._timer is None:
            self._came_before = self._came
            self._timer = asyncio.get_running_loop().call_later(DELAY / 2, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._came - self._masker.held < self._came_before:
            try:
                self._log.write(self._masker.pause())
            except OSError as error:  # whoever appends next is told
                self._failure = error
        self._watch()
