"""The spooled log: what is appended is what is published, whatever the sizes, and a slow broker slows the writer."""

import asyncio
import hashlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leveret_proto.messages import LogChunk
from leveret_worker.logs import CHUNK, SpooledLog

GRANT = "0190c5a0-0000-7000-8000-000000000001"


class Sink:
    """Takes chunks as logsink would: by offset."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.end: LogChunk | None = None

    async def __call__(self, chunk: LogChunk, data: bytes) -> None:
        assert len(data) <= CHUNK
        end = chunk.offset + len(data)
        self.content.extend(bytes(max(0, end - len(self.content))))
        self.content[chunk.offset : end] = data
        if chunk.total is not None:
            assert self.end is None
            self.end = chunk


async def through(path: Path, pieces: list[bytes], limit: int = 10**9) -> Sink:
    sink = Sink()
    log = SpooledLog(path, GRANT, "build", limit=limit, backlog=10**9)
    async with asyncio.TaskGroup() as group:
        group.create_task(log.deliver(sink))
        for piece in pieces:
            await log.append(piece)
        log.finish()
    return sink


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 3 * CHUNK), max_size=6))
def test_bytes_arrive_whole_with_their_proof(tmp_path: Path, sizes: list[int]) -> None:
    pieces = [bytes([index % 251]) * size for index, size in enumerate(sizes)]
    path = tmp_path / "log"
    path.unlink(missing_ok=True)
    sink = asyncio.run(through(path, pieces))
    whole = b"".join(pieces)
    assert bytes(sink.content) == whole
    assert sink.end is not None
    assert (sink.end.total, sink.end.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())


async def test_past_the_limit_a_line_says_so_and_the_rest_is_left_out(tmp_path: Path) -> None:
    sink = await through(tmp_path / "log", [b"x" * 90, b"y" * 90, b"z" * 90], limit=100)
    assert bytes(sink.content).startswith(b"x" * 90 + b"y" * 10 + b"\n[leveret: the log's limit of 100 bytes")
    assert b"z" not in sink.content


async def test_a_broker_that_confirms_nothing_stops_the_writer(tmp_path: Path) -> None:
    confirm = asyncio.Event()
    sent = asyncio.Event()

    async def held_back(chunk: LogChunk, data: bytes) -> None:
        sent.set()
        await confirm.wait()

    log = SpooledLog(tmp_path / "log", GRANT, "build", limit=10**9, backlog=100)
    async with asyncio.TaskGroup() as group:
        group.create_task(log.deliver(held_back))
        writer = group.create_task(log.append(b"x" * 101))
        await sent.wait()
        assert not writer.done()
        confirm.set()
        await writer
        log.finish()


async def test_a_restarted_worker_publishes_the_same_bytes_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    first = await through(path, [b"one\n", b"two\n"])
    again = await through(path, [])
    assert again.content == first.content
    assert again.end == first.end


async def test_a_log_cut_off_by_a_crash_has_no_end(tmp_path: Path) -> None:
    sink = Sink()
    log = SpooledLog(tmp_path / "log", GRANT, "build", limit=10**9, backlog=10**9)
    await log.append(b"so far\n")
    log.finish(whole=False)
    await log.deliver(sink)
    assert bytes(sink.content) == b"so far\n"
    assert sink.end is None


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1])
async def test_every_log_has_exactly_one_end(tmp_path: Path, size: int) -> None:
    sink = await through(tmp_path / "log", [b"x" * size])
    assert sink.end is not None
    assert sink.end.total == size
