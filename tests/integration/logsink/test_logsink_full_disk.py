"""A full disk is back-pressure and an alarm, on a real small file system. Nothing is lost, and it goes on by itself."""

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from leveret_proto.links import artifact_path, log_path
from leveret_runtime.broker import Refused
from tests.integration.logsink.stage import LIMIT, LINK, Stage, facts, pieces, sha256
from tests.support.services import Service

MIB = 1024 * 1024
SIZE = 24 * MIB


@pytest.fixture
def small(stage: Stage) -> Iterator[Path]:
    """The storage, on a file system of its own of SIZE bytes."""
    stage.storage.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE},nr_inodes=200", "tmpfs", stage.storage],
        capture_output=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield stage.storage
    finally:
        subprocess.run(["umount", "--lazy", stage.storage], check=True)


def lines(sink: Service, event: str) -> list[dict[str, object]]:
    found = (json.loads(line) for line in sink.log.read_text().splitlines() if line.startswith("{"))
    return [line for line in found if line["event"] == event]


async def said(sink: Service, event: str, count: int = 1) -> dict[str, object]:
    async with asyncio.timeout(LIMIT):
        while len(found := lines(sink, event)) < count:
            await asyncio.sleep(0.02)
    return found[-1]


async def test_below_the_floor_nothing_is_taken_until_there_is_room(stage: Stage, small: Path) -> None:
    body = os.urandom(MIB)
    sink = await stage.logsink(free_floor=str(8 * MIB))
    await stage.dispatcher.started(facts(18), 1, "w1")
    await stage.w1.chunk(18, 1, "build", 0, body[:1000])
    await stage.until("select contiguous = 1000 from stream")
    ballast = small / "ballast"
    ballast.write_bytes(bytes(SIZE - 6 * MIB))
    alarm = await said(sink, "no room")
    assert (alarm["level"], alarm["floor"]) == ("error", 8 * MIB)
    assert isinstance(alarm["free"], int)
    assert alarm["free"] < 8 * MIB
    # the queue takes chunks as ever; none of them is stored
    for offset, part in pieces(body, 64_000):
        await stage.w1.chunk(18, 1, "build", offset, part)
    await stage.w1.chunk(18, 1, "build", len(body), b"", whole=body)
    assert await stage.until("select contiguous = 1000 from stream")
    # readers are served meanwhile
    assert (await stage.get(stage.url(sink) + log_path(18, LINK, 1, "build")))[2] == body[:1000]
    # a logsink that starts now says so, serves, and takes nothing either
    other = await stage.logsink(free_floor=str(8 * MIB))
    assert "takes nothing" in str((await said(other, "ready"))["status"])
    assert (await stage.get(stage.url(other) + log_path(18, LINK, 1, "build")))[2] == body[:1000]

    # and it ends when it is asked to, though it waits
    await other.terminate()
    assert lines(other, "stopped")

    ballast.unlink()
    event = await stage.events.log_event()
    assert (event.status, event.sha256) == ("sealed", sha256(body))
    await said(sink, "room again")
    assert (await stage.get(stage.url(sink) + log_path(18, LINK, 1, "build")))[2] == body
    assert stage.dead.empty()


async def test_a_disk_that_fills_up_in_the_middle_of_a_write_loses_nothing(stage: Stage, small: Path) -> None:
    """With hardly a floor, a chunk's write meets the end of the disk half-way. Artifacts and logs both wait."""
    artifact, body = os.urandom(12 * MIB), os.urandom(2 * MIB)
    ballast = small / "ballast"
    ballast.write_bytes(bytes(SIZE - 5 * MIB - 100_000))
    sink = await stage.logsink(free_floor="1")
    await stage.dispatcher.started(facts(34), 1, "w1")
    await stage.w1.artifact(34, 1, 0, "out", pieces(artifact, 256 * 1024), artifact)
    assert "No space left" in str((await said(sink, "no room"))["waits_for"])
    await stage.w1.log(34, 1, "build", body, size=64_000)
    await stage.until("select count(*) = 1 from job")
    ballast.unlink()
    event = await stage.events.log_event()
    assert (event.status, event.sha256) == ("sealed", sha256(body))
    await stage.until("select state = 'sealed' from stream where kind = 'artifact'")
    assert (await stage.get(stage.url(sink) + artifact_path(34, LINK, 1, 0, "out")))[2] == artifact
    assert stage.dead.empty()
    assert '"waiting"' not in sink.log.read_text(), "the service lost its session over it"


@pytest.mark.slow
async def test_no_inode_left_is_a_full_disk_too(stage: Stage, small: Path) -> None:
    """Free bytes don't show it; it opens when a trial goes well."""
    sink = await stage.logsink(free_floor=str(MIB))
    many = small / "many"
    many.mkdir()
    while os.statvfs(small).f_favail:
        (many / str(len(os.listdir(many)))).touch()
    await stage.dispatcher.started(facts(18), 1, "w1")
    await stage.w1.log(18, 1, "build", b"hello\n")
    alarm = await said(sink, "no room")
    assert "No space left" in str(alarm["waits_for"])
    for path in many.iterdir():
        path.unlink()
    event = await stage.events.log_event()
    assert (event.status, event.sha256) == ("sealed", sha256(b"hello\n"))


async def test_retention_makes_room_first(stage: Stage, small: Path) -> None:
    """What is too old anyway goes as soon as room is wanted, and that ends the alarm."""
    old = os.urandom(14 * MIB)
    sink = await stage.logsink(free_floor=str(8 * MIB), keep_days="1")
    await stage.dispatcher.started(facts(18), 1, "w1")
    await stage.w1.artifact(18, 1, 0, "out", pieces(old, 256 * 1024), old)
    await stage.dispatcher.ended(facts(18), 1, "w1")
    await stage.until(
        "select count(*) = 1 from stream s join job j using (job) where s.state = 'sealed' and ended_at < now()"
    )
    await stage.until(
        "with aged as (update job set ended_at = now() - interval '2 days' returning 1) select count(*) from aged"
    )
    (small / "ballast").write_bytes(bytes(4 * MIB))
    await said(sink, "no room")
    await said(sink, "room again")
    assert await stage.until("select count(*) = 0 from job")
    assert {path.name for path in small.rglob("*") if path.is_file()} == {"ballast"}


@pytest.mark.slow
async def test_publishers_are_refused_when_the_queue_is_full(stage: Stage, small: Path) -> None:
    """The bound of the queue is what the workers feel."""
    (small / "ballast").write_bytes(bytes(SIZE - MIB))
    await stage.logsink(free_floor=str(8 * MIB))
    chunk = bytes(256 * 1024)
    refused = False
    for number in range(64 * 4 + 200):
        try:
            await stage.w1.chunk(18, 1, "build", number * len(chunk), chunk)
        except Refused:
            refused = True
            break
    assert refused
