"""A job's way through the dispatcher over a real broker and database: granted once, followed, ended, told."""

from leveret_proto.capability import Requirement
from leveret_proto.messages import (
    AttemptState,
    EndedJob,
    Grant,
    JobStatus,
    Reason,
    Report,
    Settle,
    TaskEvent,
    TaskResult,
    TaskState,
    WorkerEvent,
)
from tests.integration.dispatcher.dispatcher_lab import Lab, artifact, held, token


async def test_a_job_goes_from_backlog_to_success(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        triggers = [{"action": "email", "condition": "always", "to": "a@example.org"}]
        job = await lab.submit(manifest={"triggers": triggers, "artifacts": ["out/scdoc"]})
        waits = await lab.job_is(job, JobStatus.PENDING, reason=Reason.NO_WORKER)
        assert "debian/trixie on x86_64" in (waits.detail or "")

        await worker.beat(token())
        grant = await worker.grant_of(job)
        assert (grant.attempt, grant.epoch, grant.time_limit) == (1, 1, 2700)
        await worker.run(grant)
        await worker.status(grant, AttemptState.RUNNING, tasks=(TaskResult(name="build", state=TaskState.RUNNING),))
        await lab.events.until(TaskEvent, lambda e: e.task.state is TaskState.RUNNING)
        await worker.succeed(grant, artifacts=(artifact("out/scdoc"), artifact("not/asked/for")))

        ended = await lab.job_is(job, JobStatus.SUCCESS)
        assert [task.state for task in ended.tasks] == [TaskState.SUCCESS, TaskState.SUCCESS]
        assert ended.tasks[0].log_url == f"http://127.0.0.1:8080/jobs/{job}/{grant.facts.link}/1/logs/build"
        assert [a.url for a in ended.artifacts] == [
            f"http://127.0.0.1:8080/jobs/{job}/{grant.facts.link}/1/artifacts/0/scdoc"
        ]
        assert ended.queued_seconds is not None
        assert (await worker.inbox.until(Settle)).grants == (grant.grant,)
        assert (await lab.notified.until(EndedJob)).triggers[0].to == "a@example.org"
        assert lab.course(job) == ["pending", "pending", "queued", "running", "success"]


async def test_a_job_without_triggers_is_nobody_elses_business(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        await worker.beat(token(), token())
        first, second = (
            await lab.submit(),
            await lab.submit(
                manifest={"triggers": [{"action": "webhook", "condition": "always", "url": "https://e.org"}]}
            ),
        )
        for job in (first, second):
            await worker.succeed(await worker.grant_of(job))
        await lab.notified.until(EndedJob)
        assert [ended.facts.job for ended in lab.notified.of(EndedJob)] == [second]


async def test_a_job_delivered_twice_is_one_job(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        job = await lab.submit()
        lab._jobs -= 1
        assert await lab.submit() == job
        await worker.beat(token(), token())
        await worker.succeed(await worker.grant_of(job))
        await lab.job_is(job, JobStatus.SUCCESS)
        after = await lab.submit()
        await worker.succeed(await worker.grant_of(after))
        await lab.job_is(after, JobStatus.SUCCESS)
        assert [grant.facts.job for grant in worker.inbox.of(Grant)] == [job, after]
        assert lab.course(job).count("pending") <= 2


async def test_jobs_are_granted_first_come_first_served_one_a_token(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        jobs = [await lab.submit() for _ in range(4)]
        for job in jobs:
            await lab.job_is(job, JobStatus.PENDING, reason=Reason.NO_WORKER)
        await worker.beat(token(), token())
        assert [(await worker.grant_of(job)).facts.job for job in jobs[:2]] == jobs[:2]
        await lab.job_is(jobs[3], JobStatus.PENDING, reason=Reason.BUSY)
        await worker.claim(token())
        await worker.grant_of(jobs[2])
        assert len(worker.inbox.of(Grant)) == 3


async def test_the_reason_for_waiting_names_what_the_nearest_worker_lacks(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        await worker.beat(token())
        await lab.events.until(WorkerEvent)
        job = await lab.submit(requirement=Requirement(arch="x86_64", image="debian/trixie", kvm=True))
        event = await lab.job_is(job, JobStatus.PENDING, reason=Reason.NO_WORKER)
        wanted = "no worker offers debian/trixie on x86_64 with kvm"
        assert event.detail == f"{wanted}; nearest is w1, which lacks kvm x86_64"


async def test_a_job_that_asks_for_memory_waits_for_a_worker_that_has_it(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        await worker.beat(token())
        await lab.events.until(WorkerEvent)
        wanted = Requirement(arch="x86_64", image="debian/trixie", memory_mib=2048, cpus=2)
        job = await lab.submit(requirement=wanted)
        event = await lab.job_is(job, JobStatus.PENDING, reason=Reason.NO_WORKER)
        asked = "no worker offers debian/trixie on x86_64 with 2GiB of memory, 2 cpus"
        assert event.detail == f"{asked}; nearest is w1, which lacks memory 2GiB"
        worker.offer = worker.offer.model_copy(update={"memory_mib": 4096, "cpus": 2})
        await worker.beat(token())
        await worker.grant_of(job)


async def test_the_limit_is_the_manifests_up_to_the_installations(lab: Lab) -> None:
    async with lab.dispatcher(time_limit_most=100.0), lab.worker() as worker:
        await worker.beat(token(), token())
        short = await lab.submit(manifest={"leveret": {"time_limit": 30}})
        long = await lab.submit(manifest={"leveret": {"time_limit": 3000}})
        assert (await worker.grant_of(short)).time_limit == 30
        assert (await worker.grant_of(long)).time_limit == 100


async def test_a_worker_is_told_of_when_it_joins_changes_drains_and_leaves(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        await worker.beat()
        await lab.events.until(WorkerEvent, lambda e: e.state == "joined")
        worker.offer = worker.offer.model_copy(update={"tags": ("disk=large",)})
        await worker.beat()
        changed = await lab.events.until(WorkerEvent, lambda e: e.state == "changed")
        assert changed.capabilities is not None and changed.capabilities.tags == ("disk=large",)
        await worker.beat(draining=True)
        await lab.events.until(WorkerEvent, lambda e: e.state == "draining")
        await worker.beat(draining=True, closing=True)
        await lab.events.until(WorkerEvent, lambda e: e.state == "left")


async def test_a_new_leader_has_every_session_report(lab: Lab) -> None:
    async with lab.worker() as worker:
        async with lab.dispatcher():
            await worker.beat()
            await lab.events.until(WorkerEvent, lambda e: e.state == "joined")
        async with lab.dispatcher():
            await worker.inbox.until(Report)
            job = await lab.submit()
            await worker.beat(token())
            grant = await worker.grant_of(job)
            assert grant.epoch == 2
            await worker.beat(held=(held(grant),))
            await worker.succeed(grant)
            await lab.job_is(job, JobStatus.SUCCESS)
        assert [e.state for e in lab.events.of(WorkerEvent)] == ["joined"]


async def test_handing_back_costs_nothing(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        await worker.beat(token())
        job = await lab.submit()
        for attempt in range(1, 5):
            grant = await worker.grant_of(job, nth=attempt)
            assert grant.attempt == attempt
            await worker.status(grant, AttemptState.ENDED)
            await lab.job_is(job, JobStatus.PENDING, reason=Reason.HANDED_BACK, nth=attempt)
            await worker.inbox.until(Settle, lambda order, grant=grant: grant.grant in order.grants)  # type: ignore[misc]
            await worker.claim(token())
        await worker.succeed(await worker.grant_of(job, nth=5))
        ended = await lab.job_is(job, JobStatus.SUCCESS)
        assert ended.attempt == 5


async def test_a_failed_task_fails_the_job_and_skips_the_rest(lab: Lab) -> None:
    async with lab.dispatcher(), lab.worker() as worker:
        await worker.beat(token())
        job = await lab.submit()
        grant = await worker.grant_of(job)
        failed = TaskResult(name="build", state=TaskState.FAILED, exit_status=3)
        await worker.status(
            grant, AttemptState.ENDED, result=JobStatus.FAILED, reason=Reason.TASK_FAILED, tasks=(failed,)
        )
        ended = await lab.job_is(job, JobStatus.FAILED)
        assert [(task.state, task.exit_status) for task in ended.tasks] == [
            (TaskState.FAILED, 3), (TaskState.SKIPPED, None),
        ]  # fmt: skip
        assert ended.reason is Reason.TASK_FAILED
