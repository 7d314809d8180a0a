"""A worker is drained while it builds, restarted, and resumed: no build is lost, and none goes there meanwhile."""

import pytest

from leveret_client import Client
from leveret_proto.messages import JobEvent, JobStatus, Reason
from tests.support.databases import Database
from tests.support.services import Services
from tests.support.system import WORKER, System, manifest, open_system, roles
from tests.support.vhosts import Vhost

OTHER = "w2"
BUILDS = 50


async def test_a_drained_workers_build_runs_elsewhere_and_nothing_is_lost(
    vhost: Vhost, database: Database, services: Services
) -> None:
    await vhost.provision(roles(WORKER, OTHER))
    async with (
        open_system(vhost, database, services, changes={"worker": {"slots": 1}}) as system,
        Client(vhost.url("operator"), "~ops") as operator,
    ):
        gate = system.gate()
        job = await system.submit(manifest(("wait", gate.script)))
        await system.journal.task_runs(job, "wait")
        reply = await operator.drain_worker(WORKER, limit=0)
        assert reply.halt is not None and reply.halt.kind == "drained"
        back = await system.journal.event(job, JobEvent, lambda event: event.reason is Reason.HANDED_BACK)
        assert (back.status, back.detail) == (JobStatus.PENDING, f"worker {WORKER} gave it back: it was drained")
        waits = await system.journal.event(job, JobEvent, lambda event: event.reason is Reason.NO_WORKER)
        assert "drained by ~ops" in (waits.detail or "")

        await system.restart("worker", slots=1)
        (view,) = await operator.workers()
        assert (view.worker, view.halt) == (WORKER, reply.halt)
        await system.start("worker", worker=OTHER, slots=1)
        gate.open()
        end = await system.journal.ended(job)
        assert (end.status, end.worker, end.attempt) == (JobStatus.SUCCESS, OTHER, 2)

        await operator.drain_worker(OTHER)
        assert (await operator.resume_worker(WORKER)).halt is None
        assert await ran_on(system) == WORKER


async def ran_on(system: System) -> str | None:
    """Have a job built; give the worker that did."""
    end = await system.journal.ended(await system.submit(manifest(("build", "true"))))
    assert end.status is JobStatus.SUCCESS
    return end.worker


@pytest.mark.slow
async def test_restarting_any_service_during_50_builds_costs_none_of_them(
    vhost: Vhost, database: Database, services: Services
) -> None:
    """One worker gives its builds their time, the other hands them back."""
    await vhost.provision(roles(WORKER, OTHER))
    first, second = {"slots": 4, "drain_limit": 15}, {"slots": 4, "drain_limit": 0}
    async with open_system(vhost, database, services, changes={"worker": first}) as system:
        await system.start("worker", worker=OTHER, **second)
        work = manifest(("work", "for part in 1 2 3 4; do echo $part; sleep 0.5; done"))
        jobs = [await system.submit(work) for _ in range(BUILDS)]
        await system.journal.task_runs(jobs[0], "work")
        for name in ("intake", "dispatcher", "logsink", "notifier"):
            await system.restart(name)
        await system.restart("worker", **first)
        await system.running[OTHER].terminate()
        await system.start("worker", worker=OTHER, **second)
        unfinished = [job for job in jobs if not any(one.status.ended for one in system.journal.of(job, JobEvent))]
        assert unfinished, "the builds had ended before the last service was restarted"

        for job in jobs:
            end = await system.journal.ended(job)
            assert end.status is JobStatus.SUCCESS, end
            assert {log.status for log in (await system.journal.logs(end)).values()} == {"sealed"}
            system.journal.check(job)
        told = [event for job in jobs for event in system.journal.of(job, JobEvent)]
        assert [event for event in told if event.reason is Reason.LOST] == []
        assert [event for event in told if event.reason is Reason.HANDED_BACK], "nothing was handed back"
