"""Which logs have grown or ended: told to this process's live readers, and asked of the database for all of them at
once, when something was stored here, and at short intervals, for another logsink may have stored it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from leveret_logsink import streams
from leveret_logsink.streams import Stream
from leveret_runtime.db import Database
from leveret_runtime.waits import pause

#: Seconds between looks where nobody wakes us.
IDLE = 0.5


class Watch:
    """One reader's view of a log. `stream` is how it stands; `over`: nothing more will be told."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.over = False
        self._changed = asyncio.Event()

    async def changed(self, limit: float) -> bool:
        """Wait at most `limit` seconds for news; say whether there was any."""
        try:
            async with asyncio.timeout(limit):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True

    def tell(self, stream: Stream | None) -> None:
        """Take how the log stands now; None: nothing will follow."""
        if stream is None:
            self.over = True
        elif (stream.held.stored.contiguous, stream.state) == (self.stream.held.stored.contiguous, self.stream.state):
            return
        else:
            self.stream = stream
        self._changed.set()


class News:
    """Tells watches what is new. One instance a process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._watched: dict[int, set[Watch]] = {}
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """There may be something new."""
        self._wake.set()

    def close(self) -> None:
        """Tell every watch that it is over."""
        for watches in self._watched.values():
            for watch in watches:
                watch.tell(None)

    @contextmanager
    def watching(self, stream: Stream) -> Iterator[Watch]:
        """Watch a log, from the state `stream` on, for the time of the block."""
        watch = Watch(stream)
        self._watched.setdefault(stream.id, set()).add(watch)
        self.wake()  # it may have grown since it was read
        try:
            yield watch
        finally:
            self._watched[stream.id].discard(watch)
            if not self._watched[stream.id]:
                del self._watched[stream.id]

    async def run(self, stop: asyncio.Event) -> None:
        """Look for news until `stop` is set. Raises DatabaseAway; watches wait meanwhile."""
        while not stop.is_set():
            self._wake.clear()
            if self._watched:
                await self._look()
            await pause(IDLE, self._wake, stop)

    async def _look(self) -> None:
        asked = list(self._watched)
        async with self._database.connection() as on:
            rows = await on.fetch(f"select {streams.COLUMNS} from stream s where s.id = any($1::bigint[])", asked)
        found = {row["id"]: streams.of_row(row) for row in rows}
        for id_ in asked:
            for watch in self._watched.get(id_, ()):
                watch.tell(found.get(id_))  # a row that is gone was removed with its log
