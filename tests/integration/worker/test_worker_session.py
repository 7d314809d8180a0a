"""A real worker process with the process executor, a real broker; the test plays the dispatcher."""

import asyncio
import hashlib
import json
import platform
from pathlib import Path

import pytest

from leveret_proto.envelope import pack
from leveret_proto.messages import Abandon, AttemptStatus, Cancel, Refuse, Report, Settle
from leveret_proto.permissions import worker as worker_permissions
from tests.support.dispatcher_played import DispatcherPlayed, StartWorker, make_grant
from tests.support.proxy import proxy_to
from tests.support.vhosts import Vhost

ARCH = platform.machine()
TASKS = """
image: test/process
environment: {GREETING: hello, LIST: [a, b c]}
tasks:
- say: |
    echo "$GREETING ${LIST[1]} $JOB_ID"
- make: |
    printf content >result.txt
artifacts: [result.txt]
"""
FOREVER = "image: test/process\ntasks:\n- wait: |\n    echo waiting\n    sleep 1000\n"


async def test_a_grant_becomes_a_build_with_logs_artifact_and_result(
    dispatcher: DispatcherPlayed, start_worker: StartWorker
) -> None:
    await start_worker()
    beat = await dispatcher.beat(beat=1)
    assert [offer.name for offer in beat.capabilities.images] == ["test/process"]
    assert len(beat.tokens) == 1

    grant = make_grant(beat, TASKS)
    await dispatcher.grant(grant, ARCH)
    running = await dispatcher.status("running")
    ended = await dispatcher.status("ended")
    assert ended.seq > running.seq
    assert (ended.result, ended.reason) == ("success", "completed")
    assert [(task.name, task.state, task.exit_status) for task in ended.tasks] == [
        ("say", "success", 0),
        ("make", "success", 0),
    ]
    # artifacts are confirmed before the result
    assert bytes(dispatcher.artifacts) == b"content"
    assert ended.artifacts[0].sha256 == hashlib.sha256(b"content").hexdigest()
    assert b"hello b c 7\n" in await dispatcher.log("say")
    for digest in ended.logs:
        assert hashlib.sha256(await dispatcher.log(digest.task)).hexdigest() == digest.sha256

    claim = await dispatcher.claim()
    assert grant.token not in claim.tokens
    await dispatcher.order(beat, Report())
    assert [held.grant for held in (await dispatcher.beat()).held] == [grant.grant]
    await dispatcher.order(beat, Settle(grants=(grant.grant,)))
    await dispatcher.beat(held=())


async def test_a_failing_task_skips_the_rest(dispatcher: DispatcherPlayed, start_worker: StartWorker) -> None:
    await start_worker()
    beat = await dispatcher.beat(beat=1)
    manifest = "image: test/process\ntasks:\n- one: 'true'\n- two: exit 3\n- three: 'true'\n"
    await dispatcher.grant(make_grant(beat, manifest), ARCH)
    ended = await dispatcher.status("ended")
    assert (ended.result, ended.reason) == ("failed", "task-failed")
    assert [(task.state, task.exit_status) for task in ended.tasks] == [
        ("success", 0), ("failed", 3), ("skipped", None),
    ]  # fmt: skip


async def test_complete_build_skips_the_rest_and_succeeds(
    dispatcher: DispatcherPlayed, start_worker: StartWorker
) -> None:
    await start_worker()
    beat = await dispatcher.beat(beat=1)
    manifest = "image: test/process\ntasks:\n- one: complete-build\n- two: 'false'\n"
    await dispatcher.grant(make_grant(beat, manifest), ARCH)
    ended = await dispatcher.status("ended")
    assert ended.result == "success"
    assert [task.state for task in ended.tasks] == ["success", "skipped"]


async def test_a_log_past_its_limit_stops_and_ends_with_its_last_bytes(
    dispatcher: DispatcherPlayed, start_worker: StartWorker
) -> None:
    """And so does a small one after it, which is past the job's."""
    await start_worker()
    beat = await dispatcher.beat(beat=1)
    manifest = "image: test/process\ntasks:\n- flood: seq 1 400000\n- late: echo late\n"
    await dispatcher.grant(make_grant(beat, manifest, log_limit=2**20, job_log_limit=8192), ARCH)
    assert (await dispatcher.status("ended")).result == "success"
    whole = b"+ seq 1 400000\n" + "".join(f"{number}\n" for number in range(1, 400001)).encode()
    log, room = await dispatcher.log("flood"), 8192 - len(await dispatcher.log("@setup"))
    shown, _, rest = log.partition(b"[leveret] the limit of 8192 bytes for all logs is reached")
    assert shown in (whole[:room], whole[:room] + b"\n")
    said = f"\n[leveret] {len(whole) - room - 2**20} bytes are left out here; the last {2**20} follow\n"
    assert rest.endswith(said.encode() + whole[-(2**20) :])
    assert b"[leveret] 0 bytes are left out here" in await dispatcher.log("late")
    assert b"late\n" in await dispatcher.log("late")


async def test_a_missing_artifact_fails_the_job(dispatcher: DispatcherPlayed, start_worker: StartWorker) -> None:
    await start_worker()
    beat = await dispatcher.beat(beat=1)
    manifest = "image: test/process\ntasks:\n- one: 'true'\nartifacts: [not/there]\n"
    await dispatcher.grant(make_grant(beat, manifest), ARCH)
    ended = await dispatcher.status("ended")
    assert (ended.result, ended.reason) == ("failed", "artifact-failed")
    assert "not/there" in (ended.detail or "")


async def test_cancel_and_time_limit_end_a_build(dispatcher: DispatcherPlayed, start_worker: StartWorker) -> None:
    await start_worker()
    beat = await dispatcher.beat(beat=1)
    grant = make_grant(beat, FOREVER)
    await dispatcher.grant(grant, ARCH)
    await dispatcher.status("running")
    await dispatcher.order(beat, Cancel(grant=grant.grant))
    ended = await dispatcher.status("ended")
    assert (ended.result, ended.reason) == ("cancelled", "cancelled")

    claim = await dispatcher.claim()
    await dispatcher.grant(make_grant(beat, FOREVER, token=claim.tokens[0], time_limit=1), ARCH)
    ended = await dispatcher.status("ended")
    assert (ended.result, ended.reason) == ("timeout", "time-limit")


async def test_a_repeated_grant_is_answered_and_never_run_twice(
    dispatcher: DispatcherPlayed, start_worker: StartWorker
) -> None:
    await start_worker()
    beat = await dispatcher.beat(beat=1)
    grant = make_grant(beat, "image: test/process\ntasks:\n- one: 'true'\n")
    await dispatcher.grant(grant, ARCH)
    ended = await dispatcher.status("ended")
    await dispatcher.grant(grant, ARCH)
    assert await dispatcher.status("ended") == ended


async def test_a_grant_on_a_used_token_is_handed_back(dispatcher: DispatcherPlayed, start_worker: StartWorker) -> None:
    await start_worker()
    beat = await dispatcher.beat(beat=1)
    await dispatcher.grant(make_grant(beat, FOREVER), ARCH)
    await dispatcher.status("running")
    await dispatcher.grant(make_grant(beat, FOREVER), ARCH)
    ended = await dispatcher.status("ended")
    assert (ended.result, ended.reason) == (None, "worker-fault")


async def test_a_grant_that_can_not_be_read_is_handed_back_and_its_slot_goes_on(
    dispatcher: DispatcherPlayed, start_worker: StartWorker
) -> None:
    """As a newer dispatcher's may be: of another type, or with less than is needed here."""
    await start_worker()
    beat = await dispatcher.beat(beat=1)
    for number, type_ in enumerate(["work.grant.v1", "work.grant.v9"], start=1):
        grant = make_grant(beat, FOREVER)
        body = json.loads(pack(grant).body)
        del body["time_limit"], body["facts"]["owner"]
        await dispatcher.grant_as(type_, json.dumps(body | {"priority": number}).encode(), grant, ARCH)
        ended = await dispatcher.status("ended")
        assert (ended.grant, ended.job, ended.attempt) == (grant.grant, grant.facts.job, grant.attempt)
        assert (ended.result, ended.reason) == (None, "worker-fault")
        assert ("time_limit: Field required" if number == 1 else "work.grant.v9") in (ended.detail or "")
        while grant.token in (beat := await dispatcher.beat()).tokens:
            pass  # a beat from before
        assert len(beat.tokens) == 1
    await dispatcher.grant(make_grant(beat, "image: test/process\ntasks:\n- one: 'true'\n"), ARCH)
    assert (await dispatcher.status("ended")).result == "success"


async def test_a_grant_for_what_is_not_offered_any_more_is_handed_back_and_its_slot_goes_on(
    dispatcher: DispatcherPlayed, start_worker: StartWorker
) -> None:
    """Such a grant was on its way when the capability was withdrawn."""
    await start_worker(LEVERET_WORKER_TAGS='["disk=large"]')
    beat = await dispatcher.beat(beat=1)
    assert "disk=large" in beat.capabilities.tags
    needing = "image: test/process\ntasks:\n- one: 'true'\nleveret: {{requires: {}}}\n"
    withdrawn = make_grant(beat, needing.format("{kvm: true}"))
    await dispatcher.grant(withdrawn, ARCH)
    ended = await dispatcher.status("ended")
    assert (ended.result, ended.reason) == (None, "handed-back")
    assert ended.detail == f"kvm {ARCH} is not offered any more"
    (token,) = (await dispatcher.claim()).tokens
    assert token != withdrawn.token
    await dispatcher.grant(make_grant(beat, needing.format("{tags: [disk=large]}"), token=token), ARCH)
    assert (await dispatcher.status("ended")).result == "success"


async def test_a_spool_that_takes_nothing_costs_no_running_build_and_no_slot(
    dispatcher: DispatcherPlayed, start_worker: StartWorker, spool: Path, tmp_path: Path
) -> None:
    await start_worker(LEVERET_WORKER_SLOTS="2")
    beat = await dispatcher.beat(beat=1)
    go_on = tmp_path / "go-on"
    manifest = f"image: test/process\ntasks:\n- one: echo begun; until [ -e {go_on} ]; do sleep 0.05; done\n"
    running = make_grant(beat, manifest)
    await dispatcher.grant(running, ARCH)
    await dispatcher.log_shows("one", b"begun")  # from here on the build needs nothing more of the folder
    grants = spool / "grants"
    grants.rename(spool / "away")
    await dispatcher.grant(make_grant(beat, FOREVER, token=beat.tokens[1]), ARCH)
    refused = await dispatcher.status("ended")
    assert (refused.result, refused.reason) == (None, "worker-fault")
    assert "spool" in (refused.detail or "")
    while beat.tokens[1] in (after := await dispatcher.beat()).tokens:
        pass  # a beat from before
    (spool / "away").rename(grants)
    again = make_grant(beat, "image: test/process\ntasks:\n- one: 'true'\n", token=after.tokens[0])
    await dispatcher.grant(again, ARCH)
    ended = await dispatcher.status("ended")
    assert (ended.grant, ended.result) == (again.grant, "success")
    go_on.touch()
    ended = await dispatcher.status("ended")
    assert (ended.grant, ended.result) == (running.grant, "success")


async def test_a_spool_in_use_is_refused_in_one_line(start_worker: StartWorker, dispatcher: DispatcherPlayed) -> None:
    await start_worker()
    await dispatcher.beat(beat=1)
    second = await start_worker(ready=False)
    assert await second.wait() == 1
    said = second.log.read_text()
    assert "another worker uses this spool" in said
    assert "Traceback" not in said


async def test_an_abandoned_grant_says_nothing_more(dispatcher: DispatcherPlayed, start_worker: StartWorker) -> None:
    await start_worker()
    beat = await dispatcher.beat(beat=1)
    grant = make_grant(beat, FOREVER)
    await dispatcher.grant(grant, ARCH)
    await dispatcher.status("running")
    await dispatcher.order(beat, Abandon(grant=grant.grant))
    await dispatcher.beat(held=())
    async with asyncio.timeout(5):
        while not dispatcher.said[AttemptStatus].empty():
            status = await dispatcher.said[AttemptStatus].get()
            assert status.state != "ended"  # type: ignore[attr-defined]


async def test_a_stopped_worker_hands_its_builds_back_and_says_goodbye(
    dispatcher: DispatcherPlayed, start_worker: StartWorker
) -> None:
    service = await start_worker()
    beat = await dispatcher.beat(beat=1)
    grant = make_grant(beat, FOREVER)
    await dispatcher.grant(grant, ARCH)
    await dispatcher.status("running")
    async with asyncio.TaskGroup() as group:
        group.create_task(service.terminate())
        ended = await dispatcher.status("ended")
        assert (ended.result, ended.reason) == (None, "handed-back")
        # it does not wait to be settled: its spool tells the result again at the next start
        goodbye = await dispatcher.beat(closing=True)
        # else the dispatcher would take it for lost, should it hear the goodbye first
        assert [(held.grant, held.state) for held in goodbye.held] == [(grant.grant, "ended")]
    assert await service.wait() == 0


@pytest.mark.parametrize("failpoint", ["worker.grant.spooled", "worker.grant.before-ack", "worker.build.started"])
async def test_a_restarted_worker_runs_no_grant_of_its_predecessor(
    dispatcher: DispatcherPlayed, start_worker: StartWorker, failpoint: str
) -> None:
    service = await start_worker(failpoint=failpoint)
    first = await dispatcher.beat(beat=1)
    await dispatcher.grant(make_grant(first, FOREVER), ARCH)
    await service.until_crashed()
    await start_worker()
    second = await dispatcher.beat(beat=1)
    assert second.session != first.session
    assert second.spool == first.spool
    assert second.held == ()


async def test_a_restarted_worker_delivers_a_spooled_result(
    dispatcher: DispatcherPlayed, start_worker: StartWorker
) -> None:
    service = await start_worker(failpoint="worker.result.spooled")
    beat = await dispatcher.beat(beat=1)
    grant = make_grant(beat, "image: test/process\ntasks:\n- one: echo done\n")
    await dispatcher.grant(grant, ARCH)
    await service.until_crashed()
    await start_worker()
    again = await dispatcher.beat(beat=1)
    assert [held.grant for held in again.held] == [grant.grant]
    ended = await dispatcher.status("ended")
    assert ended.result == "success"
    assert (await dispatcher.log("one")).endswith(b"done\n")
    await dispatcher.order(again, Settle(grants=(grant.grant,)))
    await dispatcher.beat(held=())


async def test_builds_outlive_the_loss_of_the_connection(
    dispatcher: DispatcherPlayed, start_worker: StartWorker, vhost: Vhost, tmp_path: Path
) -> None:
    async with proxy_to(vhost.url("w1")) as proxy:
        await start_worker(LEVERET_WORKER_AMQP_URL=proxy.url(vhost.url("w1")))
        beat = await dispatcher.beat(beat=1)
        go_on = tmp_path / "go-on"
        manifest = (
            f"image: test/process\ntasks:\n- one: |\n    until [ -e {go_on} ]; do sleep 0.05; done\n    echo on\n"
        )
        await dispatcher.grant(make_grant(beat, manifest), ARCH)
        await dispatcher.status("running")
        assert proxy.cut() == 2
        go_on.touch()
        ended = await dispatcher.status("ended")
        assert (ended.session, ended.result) == (beat.session, "success")
        assert (await dispatcher.log("one")).endswith(b"on\n")


async def test_a_channel_that_the_broker_closes_is_replaced(
    dispatcher: DispatcherPlayed, start_worker: StartWorker, vhost: Vhost
) -> None:
    may = worker_permissions("w1")
    account = {"configure": may.configure, "write": may.write, "read": may.read}
    resource = f"permissions/{vhost.name}/w1"
    service = await start_worker()
    beat = await dispatcher.beat(beat=1)
    # without the right to publish logs, the first chunk closes the bulk channel; its connection stays open
    await vhost.api("PUT", resource, account | {"write": may.write.replace(r"leveret\.logs|", "")})
    await dispatcher.grant(make_grant(beat, "image: test/process\ntasks:\n- one: echo said\n"), ARCH)
    async with asyncio.timeout(20):
        while "waits_for" not in service.log.read_text():
            await dispatcher.beat()
    await vhost.api("PUT", resource, account)
    assert (await dispatcher.log("one")).endswith(b"said\n")


async def test_a_refused_session_says_so_and_tries_again(
    dispatcher: DispatcherPlayed, start_worker: StartWorker
) -> None:
    service = await start_worker()
    beat = await dispatcher.beat(beat=1)
    await dispatcher.order(beat, Refuse(why="w1 is live elsewhere"))
    await dispatcher.beat()
    assert "w1 is live elsewhere" in service.log.read_text()


async def test_the_worker_needs_no_asyncpg(
    start_worker: StartWorker, dispatcher: DispatcherPlayed, tmp_path: Path
) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "asyncpg.py").write_text("raise ImportError('not installed')\n")
    await start_worker(PYTHONPATH=str(blocked))
    await dispatcher.beat(beat=1)
