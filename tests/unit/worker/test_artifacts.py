"""An artifact on its way: read no faster than the broker takes it, whole or without an end, and then off the disk."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from leveret_proto.messages import Artifact, ArtifactChunk
from leveret_worker.artifacts import CHUNK, SpooledArtifact
from leveret_worker.backlog import Backlog

GRANT = "0190c5a0-0000-7000-8000-000000000001"
PIECE = 32 * 1024


class Sink:
    """Takes chunks as logsink would: by offset."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.end: ArtifactChunk | None = None

    async def __call__(self, chunk: ArtifactChunk, data: bytes) -> None:
        end = chunk.offset + len(data)
        self.content.extend(bytes(max(0, end - len(self.content))))
        self.content[chunk.offset : end] = data
        self.end = chunk if chunk.total is not None else self.end


class Source:
    """A guest's file, in pieces; `read` counts those that were taken. It breaks off after `breaks` of them."""

    def __init__(self, size: int, breaks: int | None = None) -> None:
        self.content = bytes(range(256)) * (size // 256 + 1)
        self.content = self.content[:size]
        self.breaks = breaks
        self.read = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        for offset in range(0, len(self.content), PIECE):
            if self.read == self.breaks:
                raise OSError("the guest is gone")
            self.read += 1
            yield self.content[offset : offset + PIECE]


def artifact(folder: Path, backlog: int = 10**9) -> SpooledArtifact:
    return SpooledArtifact(folder, GRANT, 3, "out/thing", backlog=Backlog(backlog))


@pytest.mark.parametrize("size", [0, 1, CHUNK, 5 * CHUNK + 7])
async def test_it_arrives_whole_with_its_proof_and_leaves_nothing_on_the_disk(tmp_path: Path, size: int) -> None:
    source, sink, sent = Source(size), Sink(), artifact(tmp_path)
    async with asyncio.TaskGroup() as group:
        group.create_task(sent.deliver(sink))
        await sent.keep(source.pieces())
        delivered = await sent.delivered()
    sha256 = hashlib.sha256(source.content).hexdigest()
    assert delivered == Artifact(path="out/thing", name="thing", bytes=size, sha256=sha256)
    assert bytes(sink.content) == source.content
    assert sink.end is not None
    assert (sink.end.total, sink.end.sha256, sink.end.index) == (size, sha256, 3)
    assert list(tmp_path.iterdir()) == []


async def test_one_that_breaks_off_has_no_end_and_is_no_artifact(tmp_path: Path) -> None:
    sink, sent = Sink(), artifact(tmp_path)
    async with asyncio.TaskGroup() as group:
        group.create_task(sent.deliver(sink))
        with pytest.raises(OSError, match="gone"):
            await sent.keep(Source(10 * PIECE, breaks=9).pieces())
        assert await sent.delivered() is None
    assert sink.end is None
    assert list(tmp_path.iterdir()) == []


async def test_a_broker_that_confirms_nothing_stops_the_reading(tmp_path: Path) -> None:
    confirm, sent_one = asyncio.Event(), asyncio.Event()
    source, sent = Source(100 * PIECE), artifact(tmp_path, backlog=10 * PIECE)

    async def held_back(chunk: ArtifactChunk, data: bytes) -> None:
        sent_one.set()
        await confirm.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(sent.deliver(held_back))
        keeping = group.create_task(sent.keep(source.pieces()))
        await sent_one.wait()
        assert source.read == 11
        assert (tmp_path / "3").stat().st_size == 11 * PIECE
        confirm.set()
        await keeping
        assert await sent.delivered() is not None
    assert source.read == 100
