"""Bytes on their way to logsink: spooled in a file, published in chunks, proven by length and SHA-256.

The file is the only buffer: the build writes to it, the courier publishes from it, and a restarted worker can publish
it all again (offsets make repeats harmless).
"""

import asyncio
import hashlib
import math
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from leveret_worker.backlog import Backlog

#: Seconds between chunks that are not full: what comes after a silence goes at once, what follows waits for more.
AGE = 0.1
#: Chunks in flight.
WINDOW = 8


class End(NamedTuple):
    """Length in bytes and SHA-256 (hexadecimal) of something that is whole."""

    total: int
    sha256: str


#: Publishes a chunk (offset, bytes, the end with the last one) and returns when it is confirmed.
Send = Callable[[int, bytes, End | None], Awaitable[None]]


class SpooledFile:
    """One stream of bytes of one attempt."""

    def __init__(self, path: Path, backlog: Backlog, *, chunk: int) -> None:
        """
        Args:
            path: the spool file; continued where it exists.
            chunk: bytes published together.
        """
        self.path = path
        self._backlog = backlog
        self._chunk = chunk
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._hash = hashlib.sha256()
        self._size = 0
        self._confirmed = 0
        self._finished = False
        self._whole = True
        self._closed = False
        self._wake = asyncio.Event()
        while data := os.pread(self._fd, 1 << 20, self._size):
            self._count(data)

    def write(self, data: bytes) -> None:
        """Write all of `data`, and count what is really there: a disk that is nearly full takes a part.

        Once the courier has been cancelled nothing is kept: nobody will send it.
        """
        rest = memoryview(b"" if self._closed else data)
        while rest:
            written = os.write(self._fd, rest)
            self._count(rest[:written])
            rest = rest[written:]

    def _count(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self._size += len(data)
        self._backlog.spooled(len(data))
        self._wake.set()

    async def room(self) -> None:
        """Wait while the broker is too far behind."""
        await self._backlog.room()

    def finish(self, *, whole: bool = True) -> None:
        """Nothing more will be written. Not `whole`: the end is unknown, so no length and digest are sent."""
        self._finished = True
        self._whole = whole
        self._wake.set()

    def end(self) -> End:
        """Length and SHA-256 of what has been written."""
        return End(self._size, self._hash.hexdigest())

    async def deliver(self, send: Send) -> None:
        """Publish until all is finished and confirmed to its end."""
        try:
            async with asyncio.TaskGroup() as group:
                await self._publish(send, group)
        finally:
            self._closed = True
            os.close(self._fd)
            self._backlog.confirmed(self._size - self._confirmed)

    async def _publish(self, send: Send, group: asyncio.TaskGroup) -> None:
        window = asyncio.Semaphore(WINDOW)
        offset = 0
        ended = False
        last = -math.inf
        while not ended:
            await self._more_than(offset, last + AGE)
            last = asyncio.get_running_loop().time()
            await window.acquire()
            data = await asyncio.to_thread(os.pread, self._fd, self._chunk, offset)
            ended = self._finished and offset + len(data) == self._size
            end = self.end() if ended and self._whole else None
            group.create_task(self._send_one(send, offset, data, end, window))
            offset += len(data)

    async def _more_than(self, offset: int, until: float) -> None:
        """Wait for a full chunk, or the end, or after the time `until` for a smaller one."""
        while self._size <= offset and not self._finished:
            self._wake.clear()
            await self._wake.wait()
        try:
            async with asyncio.timeout_at(until):
                while self._size - offset < self._chunk and not self._finished:
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            pass  # old enough

    async def _send_one(self, send: Send, offset: int, data: bytes, end: End | None, window: asyncio.Semaphore) -> None:
        await send(offset, data, end)
        window.release()
        self._confirmed += len(data)
        self._backlog.confirmed(len(data))
