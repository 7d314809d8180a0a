"""The shell around a mask: what it holds back is seen within its delay, and a log's end waits for nothing."""

import asyncio
import errno
from pathlib import Path

import pytest

from leveret_proto.messages import LogChunk
from leveret_worker import masked_output
from leveret_worker.backlog import Backlog
from leveret_worker.log_limit import JobLimit, LogLimit
from leveret_worker.logs import SpooledLog
from leveret_worker.masked_output import MaskedOutput
from leveret_worker.masking import Mask

GRANT = "0190c5a0-0000-7000-8000-000000000001"
SECRET = "hunter2-hunter3"


class Log:
    """A masked log, and what came out of it so far."""

    def __init__(self, path: Path, *secrets: str) -> None:
        limit = LogLimit(10**9, JobLimit(10**9))
        self._path = path
        self.spooled = SpooledLog(path, GRANT, "build", limit=limit, backlog=Backlog(10**9))
        self.output = MaskedOutput(self.spooled, Mask(secrets))

    @property
    def content(self) -> bytes:
        return self._path.read_bytes()

    async def end(self) -> bytes:
        async def take(chunk: LogChunk, data: bytes) -> None:
            pass

        self.output.finish()
        await self.spooled.deliver(take)
        return self.content


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log", SECRET)


async def test_output_and_the_worker_s_own_lines_are_masked_in_their_order(log: Log) -> None:
    await log.output.append(b"one hunter2-")
    await log.output.append(b"hunter3 two\nhunter")
    await log.output.say(f"cloning {SECRET}")
    assert await log.end() == b"one *** two\nhunter[leveret] cloning ***\n"
    assert log.output.digest().bytes == len(log.content)


async def test_what_may_begin_a_secret_is_seen_after_the_delay(log: Log) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await log.output.append(b"prompt: hun")
    assert log.content == b"prompt: "
    while log.content != b"prompt: hun":
        await asyncio.sleep(0.005)
    assert loop.time() - began >= masked_output.DELAY / 2
    await log.output.append(b"ter2")
    while not log.content.endswith(b"***"):
        await asyncio.sleep(0.005)
    await log.output.append(b"-hunter3\n")
    assert await log.end() == b"prompt: hun***\n"


async def test_none_waits_longer_than_the_delay_though_more_comes_all_the_time(log: Log) -> None:
    """A byte that began a secret goes out however soon before that time the next one came."""
    await log.output.append(b"h")
    log.output._look()  # half the delay is over, and the other half for what came before it
    assert log.content == b"h"
    await log.output.append(b"u")  # the timer was set by now
    log.output._look()
    await log.output.append(b"n")
    assert log.output._masker.held == 1  # "n" came since the timer was set, and waits for its next half
    log.output._look()
    log.output._look()
    assert log.content == b"hun"
    assert await log.end() == b"hun"


async def test_an_end_waits_for_nothing(log: Log) -> None:
    await log.output.append(b"hun")
    assert await log.end() == b"hun"


async def test_a_disk_that_is_full_when_a_pause_is_written_is_told_to_whoever_appends_next(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = asyncio.Event()

    def full(data: bytes) -> None:
        if data:
            tried.set()
            raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(log.spooled, "write", full)
        await log.output.append(b"hun")
        await tried.wait()
        with pytest.raises(OSError, match="no space left"):
            await log.output.append(b"more")
    await log.end()
