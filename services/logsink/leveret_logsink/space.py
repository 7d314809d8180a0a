"""Whether the storage takes more: closed before it is full, or once it fails, until there is room again.

While it is closed no chunk is taken, so none is acked: the queues fill to their bound, the broker refuses workers'
chunks, workers keep them, and in the end guests are slowed. Nothing is lost, and all goes on by itself.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from leveret_logsink.storage import Storage, StorageAway, StorageFull
from leveret_runtime.waits import first, pause

log = structlog.get_logger(__name__)

#: Seconds between looks.
INTERVAL = 1.0
#: Seconds between lines in the log while it is closed.
REMIND = 60.0
#: Bytes that can be written, as a trial, before it is opened after a failure: about what the partitions write at once.
TRIAL = 16 * 1024 * 1024
#: Seconds it stays closed after a failure, at first and at most: doubled while every opening ends in another one.
FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0


@dataclass(frozen=True, slots=True)
class Condition:
    """What an operator is shown: how many bytes are free (None: unknown), and why nothing is taken ("": it is)."""

    free: int | None
    floor: int
    why: str = ""

    @property
    def open(self) -> bool:
        return not self.why


def judged(before: Condition, free: int) -> Condition:
    """Judge by the free bytes. It opens with an eighth of the floor to spare, so that it does not flutter. Pure."""
    floor = before.floor if before.open else before.floor + before.floor // 8
    why = "" if free >= floor else f"storage: {free} bytes are free; nothing is taken below {floor}"
    return Condition(free, before.floor, why)


class Space:
    """Watches a storage. One instance a process; whoever writes waits for it, and tells it of failures."""

    def __init__(self, storage: Storage, floor: int, closed: Callable[[], None]) -> None:
        """`floor`: free bytes below which nothing is taken. `closed` is called each time that begins."""
        self._storage = storage
        self._closed = closed
        self.condition = Condition(None, floor)
        self._opened = asyncio.Event()
        self._opened.set()
        self._failed = asyncio.Event()
        self._wait = FIRST_WAIT

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until `stop` is set."""
        loop = asyncio.get_running_loop()
        told = loop.time()
        while not stop.is_set():
            if self._failed.is_set():
                await pause(self._wait, stop)
                self._wait = min(self._wait * 2, LONGEST_WAIT)
            await self.look()
            if self.condition.open:
                told = loop.time()
            elif loop.time() - told >= REMIND:
                told = loop.time()
                self._alarm()
            await pause(INTERVAL, self._failed, stop)

    async def look(self, *, trial: bool = False) -> None:
        """Find out how it is now. Opens only after a trial; with `trial` it is tried in any case."""
        try:
            found = judged(self.condition, await asyncio.to_thread(self._storage.free))
            if found.open and (trial or not self.condition.open):
                await asyncio.to_thread(self._storage.try_room, min(self.condition.floor, TRIAL))
        except StorageAway as away:
            found = Condition(None, self.condition.floor, str(away))
        if found.open:
            self._failed.clear()
        self._become(found)

    def failed(self, why: StorageFull) -> None:
        """A write failed: nothing more is taken until a trial goes well."""
        self._failed.set()
        self._become(Condition(self.condition.free, self.condition.floor, str(why)))

    def written(self) -> None:
        """A write went well."""
        self._wait = FIRST_WAIT

    async def room(self, stop: asyncio.Event) -> bool:
        """Wait until something is taken; False where `stop` was set first."""
        return self._opened.is_set() or await first(self._opened.wait(), stop) is not None

    def _become(self, now: Condition) -> None:
        before, self.condition = self.condition, now
        if before.open and not now.open:
            self._opened.clear()
            self._alarm()
            self._closed()
        elif now.open and not before.open:
            self._opened.set()
            log.warning("room again", free=now.free, floor=now.floor)

    def _alarm(self) -> None:
        now = self.condition
        log.error("no room", waits_for=now.why, free=now.free, floor=now.floor)
