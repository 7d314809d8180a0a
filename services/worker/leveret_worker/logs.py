"""A log on its way from a guest to logsink: spooled in a file, published in chunks, proven by length and SHA-256.

The file is the only buffer: the build appends, the courier publishes from it, and a restarted worker can publish it all
again (offsets make repeats harmless). When too much of it is unconfirmed, `append` waits, and so the guest does.
"""

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from leveret_proto.messages import LogChunk, LogDigest

#: Bytes of a chunk, and seconds that a smaller one waits for more.
CHUNK = 64 * 1024
AGE = 0.1
#: Chunks in flight.
WINDOW = 8

SendChunk = Callable[[LogChunk, bytes], Awaitable[None]]


class SpooledLog:
    """One log of one attempt."""

    def __init__(self, path: Path, grant: str, name: str, *, limit: int, backlog: int) -> None:
        """
        Args:
            path: the spool file; continued where it exists.
            limit: bytes after which the rest is left out, with a line that says so.
            backlog: unconfirmed bytes at which `append` waits.
        """
        self.name = name
        self._grant = grant
        self._limit = limit
        self._backlog = backlog
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._hash = hashlib.sha256()
        self._size = 0
        self._confirmed = 0
        self._finished = False
        self._whole = True
        self._cut = False
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._reread()

    def _reread(self) -> None:
        while data := os.pread(self._fd, 1 << 20, self._size):
            self._hash.update(data)
            self._size += len(data)

    async def append(self, data: bytes) -> None:
        """Add `data`; wait while the broker is too far behind."""
        if self._cut or not data:
            return
        if self._size + len(data) > self._limit:
            data = data[: max(0, self._limit - self._size)]
            data += f"\n[leveret: the log's limit of {self._limit} bytes is reached; the rest is left out]\n".encode()
            self._cut = True
        self._write(data)
        while self._size - self._confirmed > self._backlog:
            self._room.clear()
            await self._room.wait()

    def _write(self, data: bytes) -> None:
        """Write all of `data`, and count what is really there: a disk that is nearly full takes a part."""
        rest = memoryview(data)
        while rest:
            written = os.write(self._fd, rest)
            self._hash.update(rest[:written])
            self._size += written
            rest = rest[written:]
            self._wake.set()

    async def say(self, line: str) -> None:
        """Add a line of the worker's own."""
        await self.append(f"[leveret] {line}\n".encode())

    def finish(self, *, whole: bool = True) -> None:
        """Nothing more will be added. Not `whole`: the end is unknown, so no length and digest are sent."""
        self._finished = True
        self._whole = whole
        self._wake.set()

    def digest(self) -> LogDigest:
        """Length and SHA-256 of what has been added."""
        return LogDigest(task=self.name, bytes=self._size, sha256=self._hash.hexdigest())

    async def deliver(self, send: SendChunk) -> None:
        """Publish until the log is finished and confirmed to its end. `send` returns when a chunk is confirmed."""
        try:
            async with asyncio.TaskGroup() as group:
                await self._publish(send, group)
        finally:
            os.close(self._fd)

    async def _publish(self, send: SendChunk, group: asyncio.TaskGroup) -> None:
        window = asyncio.Semaphore(WINDOW)
        offset = 0
        ended = False
        while not ended:
            await self._more_than(offset)
            data = await asyncio.to_thread(os.pread, self._fd, CHUNK, offset)
            ended = self._finished and offset + len(data) == self._size
            chunk = self._chunk(offset, ended)
            await window.acquire()
            group.create_task(self._send_one(send, chunk, data, window))
            offset += len(data)

    async def _more_than(self, offset: int) -> None:
        """Wait for a full chunk, or a smaller one of a certain age, or the end."""
        while self._size <= offset and not self._finished:
            self._wake.clear()
            await self._wake.wait()
        try:
            async with asyncio.timeout(AGE):
                while self._size - offset < CHUNK and not self._finished:
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            pass  # old enough

    def _chunk(self, offset: int, ended: bool) -> LogChunk:
        if not (ended and self._whole):
            return LogChunk(grant=self._grant, offset=offset)
        return LogChunk(grant=self._grant, offset=offset, total=self._size, sha256=self._hash.hexdigest())

    async def _send_one(self, send: SendChunk, chunk: LogChunk, data: bytes, window: asyncio.Semaphore) -> None:
        await send(chunk, data)
        window.release()
        self._confirmed += len(data)
        self._room.set()
