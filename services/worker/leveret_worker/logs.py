"""A log on its way from a guest to logsink: limited, spooled, delivered.

When too much waits for the broker, `append` waits, and so the guest does.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

from leveret_proto.messages import LogChunk, LogDigest
from leveret_worker.backlog import Backlog
from leveret_worker.log_limit import LogLimit
from leveret_worker.spooled import End, SpooledFile

#: Bytes of a chunk.
CHUNK = 64 * 1024

SendChunk = Callable[[LogChunk, bytes], Awaitable[None]]


class SpooledLog:
    """One log of one attempt."""

    def __init__(self, path: Path, grant: str, name: str, *, limit: LogLimit, backlog: Backlog) -> None:
        """
        Args:
            path: the spool file; continued where it exists.
            limit: what of it is published.
            backlog: the attempt's; past its bound `append` waits.
        """
        self.name = name
        self._grant = grant
        self._limit = limit
        self._file = SpooledFile(path, backlog, chunk=CHUNK)

    async def append(self, data: bytes) -> None:
        """Add `data`; wait while the broker is too far behind."""
        self.write(data)
        await self.room()

    def write(self, data: bytes) -> None:
        """Add `data` to the spool at once, whatever the broker does. Who writes much calls `room` between."""
        self._file.write(self._limit.take(data))

    async def room(self) -> None:
        """Wait while the broker is too far behind."""
        await self._file.room()

    def finish(self, *, whole: bool = True) -> None:
        """Nothing more will be added. Not `whole`: the end is unknown, so no length and digest are sent."""
        try:
            self._file.write(self._limit.end())
        finally:  # a full disk is told, and what is there is delivered
            self._file.finish(whole=whole)

    def digest(self) -> LogDigest:
        """Length and SHA-256 of what has been published, or will be."""
        end = self._file.end()
        return LogDigest(task=self.name, bytes=end.total, sha256=end.sha256)

    async def deliver(self, send: SendChunk) -> None:
        """Publish until the log is finished and confirmed to its end. `send` returns when a chunk is confirmed."""

        async def send_chunk(offset: int, data: bytes, end: End | None) -> None:
            await send(log_chunk(self._grant, offset, end), data)

        await self._file.deliver(send_chunk)


def log_chunk(grant: str, offset: int, end: End | None) -> LogChunk:
    """Make the headers of a chunk."""
    if end is None:
        return LogChunk(grant=grant, offset=offset)
    return LogChunk(grant=grant, offset=offset, total=end.total, sha256=end.sha256)
