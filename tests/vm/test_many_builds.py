"""One worker process, one build after the other: what it holds at the end is what it held when it was warm."""

import asyncio
from pathlib import Path

import pytest

from leveret_proto.messages import Settle, WorkerBeat
from tests.support.dispatcher_played import DispatcherPlayed, make_grant
from tests.support.guest_images import stored_image
from tests.support.hostile_guests import hostile_store
from tests.support.leavings import Holdings, memory, until_nothing_is_left
from tests.support.lone_worker import lone_worker
from tests.support.services import Services
from tests.support.vhosts import Vhost

pytestmark = [pytest.mark.vm, pytest.mark.image("test/minimal"), pytest.mark.timeout(7200)]

IMAGE = "test/minimal"
#: Builds after which a process has loaded, cached and pooled what it ever will.
WARM = 5
#: Bytes that the memory of a warm process may grow by in all, however many builds: far less than one build's worth.
GROWTH = 4 * 1024 * 1024
MANIFEST = f"image: {IMAGE}\ntasks:\n- one: head -c 100000 /dev/zero >made\nartifacts: [made]\n"


@pytest.mark.parametrize("builds", [10, pytest.param(1000, marks=pytest.mark.slow)])
async def test_builds_leave_nothing_behind(
    vhost: Vhost, dispatcher: DispatcherPlayed, services: Services, tmp_path: Path, builds: int
) -> None:
    spool = tmp_path / "spool"
    images = hostile_store(tmp_path / "images", stored_image(IMAGE), ()).root
    environment = lone_worker(vhost, spool, images=images, probe_limit=0.1, beat_interval=0.5)
    worker = await services.start("leveret_worker.main", environment)
    while not (beat := await dispatcher.beat()).capabilities.images or not any("kvm" in note for note in beat.notes):
        pass
    for _ in range(WARM):
        beat = await build(dispatcher, beat)
    before, used = Holdings.of(worker.pid, spool), memory(worker.pid)
    for _ in range(builds):
        beat = await build(dispatcher, beat)
    await until_nothing_is_left(worker.pid, spool, before)
    grown = memory(worker.pid) - used
    assert grown < GROWTH, f"{grown / 1024:.0f} KiB more after {builds} builds than after {WARM}"


async def build(dispatcher: DispatcherPlayed, beat: WorkerBeat) -> WorkerBeat:
    """Have one build made on a token of `beat`; give the first beat by which it is settled and its slot is free."""
    grant = make_grant(beat, MANIFEST)
    await dispatcher.grant(grant, "x86_64", IMAGE)
    ended = await dispatcher.status("ended", limit=120)
    assert (ended.result, ended.detail) == ("success", None)
    assert len(dispatcher.artifacts) == 100_000
    dispatcher.artifacts.clear()
    await dispatcher.order(beat, Settle(grants=(grant.grant,)))
    async with asyncio.timeout(30):
        while grant.token in (later := await dispatcher.beat(held=())).tokens or not later.tokens:
            pass
    return later
