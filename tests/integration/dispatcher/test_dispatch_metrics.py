"""What the leader's metrics say of a backlog, of grants and of what is lost."""

import asyncio

import aio_pika
import pytest

from leveret_dispatcher import metrics
from leveret_proto.capability import Requirement
from leveret_proto.messages import JobStatus, Reason
from leveret_proto.topology import DISPATCHER_JOBS, JOBS
from tests.integration.dispatcher.dispatcher_lab import LIMIT, REQUIREMENT, Lab, token
from tests.support.monitors import own_page

WAITING = "leveret_dispatcher_waiting_jobs"
OLDEST = "leveret_dispatcher_oldest_waiting_seconds"


async def test_the_backlog_is_told_by_requirement_and_reason(lab: Lab) -> None:
    async with lab.dispatcher():
        bare = await lab.submit()
        tagged = await lab.submit(requirement=Requirement(arch="x86_64", image="debian/trixie", tags=("b", "a")))
        for job in (bare, tagged):
            await lab.job_is(job, JobStatus.PENDING, reason=Reason.NO_WORKER)
        page = await own_page()
        about = {"arch": "x86_64", "image": "debian/trixie", "kvm": "any", "reason": "no-worker"}
        assert page.value(WAITING, **about, tags="") == 1
        assert page.value(WAITING, **about, tags="a,b") == 1
        assert 0 <= page.value(OLDEST, **about, tags="") < 60
        assert page.value("leveret_dispatcher_epoch") == 1
        assert page.has("leveret_outbox_messages")
    # whoever leads no more shows none of it
    page = await own_page()
    assert not page.has(WAITING)
    assert page.value("leveret_dispatcher_epoch") == 0


async def test_rare_kinds_of_jobs_are_told_as_one(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Submitters choose images: a thousand made-up ones must not make a thousand series."""
    monkeypatch.setattr(metrics, "MOST_KINDS", 1)
    async with lab.dispatcher():
        frequent = [await lab.submit() for _ in range(2)]
        rare = [await lab.submit(requirement=Requirement(arch="x86_64", image=f"made/up{n}")) for n in range(3)]
        for job in (*frequent, *rare):
            await lab.job_is(job, JobStatus.PENDING, reason=Reason.NO_WORKER)
        page = await own_page()
    assert page.value(WAITING, image="debian/trixie") == 2
    assert page.value(WAITING, image="other", reason="") == 3
    assert page.value(WAITING) == 5


async def test_grants_ends_and_losses_are_counted_and_workers_shown(lab: Lab) -> None:
    before = await own_page()
    async with lab.dispatcher():
        async with lab.worker() as worker:
            first = await lab.submit()
            await worker.beat(token(), token())
            grant = await worker.grant_of(first)
            page = await own_page()
            assert page.value("leveret_dispatcher_attempts") == 1
            assert page.value("leveret_dispatcher_worker_slots", worker="w1") == 4
            assert page.value("leveret_dispatcher_worker_free_slots", worker="w1") == 1
            assert page.value("leveret_dispatcher_worker_draining", worker="w1") == 0
            await worker.run(grant)
            await worker.succeed(grant)
            await lab.job_is(first, JobStatus.SUCCESS)

            second = await lab.submit()
            await worker.run(await worker.grant_of(second))
            await lab.job_is(second, JobStatus.RUNNING)
        async with lab.worker(spool=worker.spool) as restarted:  # it lists nothing: what it held is lost
            await restarted.beat()
            await lab.job_is(second, JobStatus.PENDING, reason=Reason.LOST)
            page = await own_page()

    def grown(name: str, **labels: str) -> float:
        return page.value(name, **labels) - before.value(name, **labels)

    assert grown("leveret_dispatcher_grant_seconds_count") == 2
    assert grown("leveret_dispatcher_wait_seconds_count") == 2
    assert grown("leveret_dispatcher_attempts_ended_total", fate="ended") == 1
    assert grown("leveret_dispatcher_attempts_ended_total", fate="lost") == 1
    assert grown("leveret_dispatcher_jobs_ended_total", status="success", reason="completed") == 1
    assert page.value("leveret_dispatcher_attempts") == 0


async def test_dead_letters_are_counted_and_those_on_the_desk_shown(lab: Lab) -> None:
    before = await own_page()
    async with lab.dispatcher():
        exchange = await lab.channel.get_exchange(JOBS, ensure=False)
        await exchange.publish(aio_pika.Message(b"nonsense", type="job.ready.v1"), REQUIREMENT.key)
        async with asyncio.timeout(LIMIT):
            while not (page := await own_page()).value("leveret_dispatcher_dead_letters"):
                await asyncio.sleep(0.02)  # no message tells of it
    unread, filed = "leveret_dead_letters_total", "leveret_dispatcher_dead_letters_filed_total"
    assert page.value(unread, queue=DISPATCHER_JOBS) - before.value(unread, queue=DISPATCHER_JOBS) == 1
    page = await own_page()
    assert page.value(filed, by="service") - before.value(filed, by="service") == 1
