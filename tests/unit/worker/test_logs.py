"""The spooled log: what is appended is what is published, whatever the sizes, and a slow broker slows the writer."""

import asyncio
import errno
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leveret_proto.messages import LogChunk
from leveret_worker import spooled
from leveret_worker.backlog import Backlog
from leveret_worker.log_limit import LAST, JobLimit, LogLimit
from leveret_worker.logs import CHUNK, SpooledLog

GRANT = "0190c5a0-0000-7000-8000-000000000001"


def spooled_log(path: Path, *, limit: int = 10**9, backlog: int = 10**9) -> SpooledLog:
    return SpooledLog(path, GRANT, "build", limit=LogLimit(limit, JobLimit(10**9)), backlog=Backlog(backlog))


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
    log = spooled_log(path, limit=limit)
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


async def test_past_the_limit_the_log_goes_on_with_its_last_bytes_and_is_proven_with_them(tmp_path: Path) -> None:
    sink = await through(tmp_path / "log", [b"x" * 90, b"y" * 90, b"z" * LAST], limit=100)
    content = bytes(sink.content)
    assert content.startswith(b"x" * 90 + b"y" * 10 + b"\n[leveret] the limit of 100 bytes for a log")
    assert content.endswith(b"[leveret] 80 bytes are left out here; the last 1048576 follow\n" + b"z" * LAST)
    assert sink.end is not None
    assert (sink.end.total, sink.end.sha256) == (len(content), hashlib.sha256(content).hexdigest())


async def test_a_broker_that_confirms_nothing_stops_the_writer(tmp_path: Path) -> None:
    confirm = asyncio.Event()
    sent = asyncio.Event()

    async def held_back(chunk: LogChunk, data: bytes) -> None:
        sent.set()
        await confirm.wait()

    log = spooled_log(tmp_path / "log", backlog=100)
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
    log = spooled_log(tmp_path / "log")
    await log.append(b"so far\n")
    log.finish(whole=False)
    await log.deliver(sink)
    assert bytes(sink.content) == b"so far\n"
    assert sink.end is None


async def test_a_disk_that_takes_only_a_part_at_a_time_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data[:3])))
    sink = await through(tmp_path / "log", [b"0123456789", b"abc"])
    assert bytes(sink.content) == b"0123456789abc"
    assert sink.end is not None


async def test_a_full_disk_is_an_error_and_what_was_written_is_proven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, left = os.write, [4, 0]

    def nearly_full(fd: int, data: bytes) -> int:
        room = left.pop(0)
        if not room:
            raise OSError(errno.ENOSPC, "no space left on device")
        return write(fd, bytes(data[:room]))

    log = spooled_log(tmp_path / "log")
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", nearly_full)
        with pytest.raises(OSError, match="no space left"):
            await log.append(b"0123456789")
    log.finish()
    sink = Sink()
    await log.deliver(sink)
    assert bytes(sink.content) == b"0123"
    assert sink.end is not None
    assert sink.end.sha256 == hashlib.sha256(b"0123").hexdigest()


async def test_a_cancelled_courier_keeps_no_file_open(tmp_path: Path) -> None:
    async def never(chunk: LogChunk, data: bytes) -> None:
        await asyncio.Event().wait()

    before = len(os.listdir("/proc/self/fd"))
    log = spooled_log(tmp_path / "log")
    async with asyncio.TaskGroup() as group:
        courier = group.create_task(log.deliver(never))
        await asyncio.sleep(0)
        courier.cancel()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_line_after_a_silence_goes_at_once_and_what_follows_soon_goes_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: asyncio.Queue[bytes] = asyncio.Queue()

    async def take(chunk: LogChunk, data: bytes) -> None:
        sent.put_nowait(data)

    monkeypatch.setattr(spooled, "AGE", 3600.0)
    log = spooled_log(tmp_path / "log")
    async with asyncio.TaskGroup() as group:
        group.create_task(log.deliver(take))
        await log.append(b"one\n")
        assert await sent.get() == b"one\n"
        await log.append(b"two\n")
        await log.append(b"three\n")
        log.finish()
        assert await sent.get() == b"two\nthree\n"


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1])
async def test_every_log_has_exactly_one_end(tmp_path: Path, size: int) -> None:
    sink = await through(tmp_path / "log", [b"x" * size])
    assert sink.end is not None
    assert sink.end.total == size
