"""Artifacts: read out of the guest into the spool, then published in chunks and confirmed before the result is sent."""

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from leveret_proto.messages import Artifact, ArtifactChunk

CHUNK = 256 * 1024
WINDOW = 4

SendChunk = Callable[[ArtifactChunk, bytes], Awaitable[None]]


class ArtifactTooLarge(Exception):
    """A file past the installation's limit."""


@dataclass(frozen=True)
class SpooledArtifact:
    """An artifact whose bytes lie in the spool. `index` is its place in the manifest's list."""

    index: int
    path: str
    name: str
    bytes: int
    sha256: str

    def message(self) -> Artifact:
        return Artifact(path=self.path, name=self.name, bytes=self.bytes, sha256=self.sha256)


async def spool(data: AsyncIterator[bytes], folder: Path, index: int, path: str, limit: int) -> SpooledArtifact:
    """Write `data`, the content of the guest's file `path`, into `folder`.

    Raises:
        ArtifactTooLarge: past `limit` bytes.
    """
    digest = hashlib.sha256()
    size = 0
    with (folder / f"{index}.data").open("wb") as file:
        async for piece in data:
            size += len(piece)
            if size > limit:
                raise ArtifactTooLarge(f"{path} is larger than the limit of {limit} bytes")
            digest.update(piece)
            await asyncio.to_thread(file.write, piece)
    spooled = SpooledArtifact(index, path, PurePosixPath(path).name, size, digest.hexdigest())
    (folder / f"{index}.json").write_text(json.dumps(asdict(spooled)))
    return spooled


def spooled_in(folder: Path) -> list[SpooledArtifact]:
    """Give the artifacts that lie whole in `folder`, by index."""
    found = [SpooledArtifact(**json.loads(entry.read_text())) for entry in folder.glob("*.json")]
    return sorted(found, key=lambda artifact: artifact.index)


async def deliver(artifact: SpooledArtifact, folder: Path, grant: str, send: SendChunk) -> None:
    """Publish all chunks of `artifact`; return when every one is confirmed."""
    window = asyncio.Semaphore(WINDOW)
    fd = os.open(folder / f"{artifact.index}.data", os.O_RDONLY | os.O_CLOEXEC)
    try:
        async with asyncio.TaskGroup() as group:
            offset = 0
            ended = False
            while not ended:
                data = await asyncio.to_thread(os.pread, fd, CHUNK, offset)
                ended = not data or offset + len(data) >= artifact.bytes
                chunk = ArtifactChunk(
                    grant=grant,
                    index=artifact.index,
                    path=artifact.path,
                    name=artifact.name,
                    offset=offset,
                    total=artifact.bytes if ended else None,
                    sha256=artifact.sha256 if ended else None,
                )
                await window.acquire()
                group.create_task(_send_one(send, chunk, data, window))
                offset += len(data)
    finally:
        os.close(fd)


async def _send_one(send: SendChunk, chunk: ArtifactChunk, data: bytes, window: asyncio.Semaphore) -> None:
    await send(chunk, data)
    window.release()
