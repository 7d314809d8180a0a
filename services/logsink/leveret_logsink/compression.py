"""Compresses sealed logs, one at a time, in the background.

Which ones is read from the database each time; a log is claimed by putting it off, so that a second logsink takes
another one, and after a crash it comes up again. Artifacts stay as they are: most are archives or packages, compressed
already, and up to a GiB of them would be read and written three times to find that out.
"""

import asyncio

import structlog

from leveret_logsink import streams
from leveret_logsink.storage import Interrupted, Storage, StorageDamaged
from leveret_logsink.streams import Stream
from leveret_runtime.db import Database
from leveret_runtime.waits import pause

log = structlog.get_logger(__name__)

#: Seconds between looks where nobody wakes us.
IDLE = 5.0
#: Seconds after which a log is tried again that was not finished.
AGAIN = 600.0
#: Of the time that a log took, how much is rested after it: storing goes first.
REST = 1.0


class Compression:
    """Compresses what is due. One instance a process."""

    def __init__(self, database: Database, storage: Storage) -> None:
        self._database = database
        self._storage = storage
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """A log was sealed."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Compress until `stop` is set. Raises StorageAway, DatabaseAway."""
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            self._wake.clear()
            began = loop.time()
            while not stop.is_set() and await self.compress_one(stop):
                await pause((loop.time() - began) * REST, stop)
                began = loop.time()
            await pause(IDLE, self._wake, stop)

    async def compress_one(self, stop: asyncio.Event) -> bool:
        """Compress the log that is due for longest; say whether there was one. Raises StorageAway, DatabaseAway."""
        async with self._database.connection() as on:
            row = await on.fetchrow(
                f"""
                update stream s set compress_at = now() + make_interval(secs => $1)
                where s.id = (select id from stream where compress_at <= now() order by compress_at limit 1
                              for update skip locked)
                returning {streams.COLUMNS}
                """,
                AGAIN,
            )
        if row is None:
            return False
        stream = streams.of_row(row)
        try:
            await self._compress(stream, stop)
        except Interrupted:
            return False  # stopping; the claim runs out
        async with self._database.connection() as on:
            await on.execute("update stream set compress_at = null where id = $1", stream.id)
        return True

    async def _compress(self, stream: Stream, stop: asyncio.Event) -> None:
        end = stream.held.end
        assert end is not None  # it is sealed
        try:
            saved = await asyncio.to_thread(self._storage.compress, stream.key, end.total, end.sha256, stop.is_set)
        except StorageDamaged as damaged:
            log.error("a sealed log is damaged and stays as it is", **stream.key._asdict(), reason=str(damaged))
        else:
            log.debug("compressed", **stream.key._asdict(), bytes=end.total, saved=saved)
