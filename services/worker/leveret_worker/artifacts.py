"""Artifacts: streamed out of the guest and on to the broker; the spool holds what is between, until it is confirmed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path, PurePosixPath

from leveret_proto.messages import Artifact, ArtifactChunk
from leveret_worker.backlog import Backlog
from leveret_worker.spooled import End, SpooledFile

#: Bytes of a chunk.
CHUNK = 256 * 1024

SendChunk = Callable[[ArtifactChunk, bytes], Awaitable[None]]


class SpooledArtifact:
    """One artifact on its way. `index` is its place in the manifest's list, `path` what the manifest calls it."""

    def __init__(self, folder: Path, grant: str, index: int, path: str, *, backlog: Backlog) -> None:
        self._grant = grant
        self._index = index
        self._path = path
        self._name = PurePosixPath(path).name
        self._file = SpooledFile(folder / str(index), backlog, chunk=CHUNK)
        self._kept: Artifact | None = None
        self._delivered = asyncio.Event()

    async def keep(self, data: AsyncIterator[bytes]) -> None:
        """Spool `data`, the file's whole content; read no more of it while the broker is too far behind.

        Whatever that raises, what was sent by then stays without an end, and is no artifact.
        """
        whole = False
        try:
            async for piece in data:
                self._file.write(piece)
                await self._file.room()
            end = self._file.end()
            self._kept = Artifact(path=self._path, name=self._name, bytes=end.total, sha256=end.sha256)
            whole = True
        finally:
            self._file.finish(whole=whole)

    async def deliver(self, send: SendChunk) -> None:
        """Publish until the end. `send` returns when a chunk is confirmed. The spool is freed then."""

        async def send_chunk(offset: int, data: bytes, end: End | None) -> None:
            await send(self._chunk(offset, end), data)

        await self._file.deliver(send_chunk)
        self._file.path.unlink()
        self._delivered.set()

    async def delivered(self) -> Artifact | None:
        """Wait until every byte is confirmed. None: it was not kept whole."""
        await self._delivered.wait()
        return self._kept

    def _chunk(self, offset: int, end: End | None) -> ArtifactChunk:
        return ArtifactChunk(
            grant=self._grant,
            index=self._index,
            path=self._path,
            name=self._name,
            offset=offset,
            total=end.total if end else None,
            sha256=end.sha256 if end else None,
        )
