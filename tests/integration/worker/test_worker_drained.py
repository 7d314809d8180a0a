"""A real worker process that is drained by order or stopped: nothing new, and an end to what runs."""

import asyncio
import platform
from pathlib import Path

import pytest

from leveret_proto.messages import Drain, Resume
from tests.support.dispatcher_played import DispatcherPlayed, StartWorker, make_grant

ARCH = platform.machine()
FOREVER = "image: test/process\ntasks:\n- wait: |\n    echo waiting\n    sleep 1000\n"
SHORT = "image: test/process\ntasks:\n- one: 'true'\n"


def waiting_for(path: Path) -> str:
    return f"image: test/process\ntasks:\n- one: until [ -e {path} ]; do sleep 0.05; done\n"


@pytest.mark.parametrize("order", [Drain(limit=0), Drain()])  # this worker's own limit is 0, too
async def test_a_drained_worker_hands_back_at_its_limit_and_claims_again_when_resumed(
    dispatcher: DispatcherPlayed, start_worker: StartWorker, order: Drain
) -> None:
    await start_worker(LEVERET_WORKER_SLOTS="2")
    beat = await dispatcher.beat(beat=1)
    await dispatcher.grant(make_grant(beat, FOREVER), ARCH)
    await dispatcher.status("running")
    await dispatcher.order(beat, order)
    ended = await dispatcher.status("ended")
    assert (ended.result, ended.reason) == (None, "handed-back")
    assert (await dispatcher.beat(draining=True, drained=True)).tokens == ()

    # a grant that was on its way: its job runs elsewhere, and that is no fault
    await dispatcher.grant(make_grant(beat, SHORT, token=beat.tokens[1]), ARCH)
    ended = await dispatcher.status("ended")
    assert (ended.result, ended.reason) == (None, "handed-back")

    await dispatcher.order(beat, Resume())
    again = await dispatcher.beat(draining=False, drained=False)
    assert len(again.tokens) == 2 and not set(again.tokens) & set(beat.tokens)
    await dispatcher.grant(make_grant(again, SHORT), ARCH)
    assert (await dispatcher.status("ended")).result == "success"


async def test_a_build_that_ends_within_the_limit_of_a_drain_counts(
    dispatcher: DispatcherPlayed, start_worker: StartWorker, tmp_path: Path
) -> None:
    await start_worker()
    beat = await dispatcher.beat(beat=1)
    go_on = tmp_path / "go-on"
    await dispatcher.grant(make_grant(beat, waiting_for(go_on)), ARCH)
    await dispatcher.status("running")
    await dispatcher.order(beat, Drain(limit=600))
    await dispatcher.beat(drained=True)
    go_on.touch()
    assert (await dispatcher.status("ended")).result == "success"
    assert (await dispatcher.beat(drained=True)).tokens == ()


async def test_a_stopped_worker_gives_its_builds_their_time_drained_or_not(
    dispatcher: DispatcherPlayed, start_worker: StartWorker, tmp_path: Path
) -> None:
    service = await start_worker(LEVERET_WORKER_DRAIN_LIMIT="600")
    beat = await dispatcher.beat(beat=1)
    go_on = tmp_path / "go-on"
    await dispatcher.grant(make_grant(beat, waiting_for(go_on)), ARCH)
    await dispatcher.status("running")
    async with asyncio.TaskGroup() as group:
        group.create_task(service.terminate())
        await dispatcher.beat(draining=True, drained=False)
        await dispatcher.order(beat, Drain())
        await dispatcher.beat(drained=True)
        await dispatcher.order(beat, Resume())  # changes nothing: it is being stopped
        assert (await dispatcher.beat(draining=True, drained=False)).tokens == ()
        go_on.touch()
        assert (await dispatcher.status("ended")).result == "success"
        await dispatcher.beat(closing=True)
    assert await service.wait() == 0
