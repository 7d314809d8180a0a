"""The dispatcher killed at every one of its failpoints: what was accepted ends once, told once, without a gap."""

import asyncio

import aio_pika
from aio_pika import DeliveryMode

from leveret_dispatcher.failpoints import FAILPOINTS
from leveret_proto import keys
from leveret_proto.messages import (
    Abandon,
    AttemptState,
    CancelJob,
    EndedJob,
    Grant,
    JobEvent,
    JobStatus,
    Settle,
)
from leveret_proto.topology import COMMANDS, DEAD
from tests.integration.dispatcher.dispatcher_lab import REQUIREMENT, FakeWorker, Lab, held, publish, token
from tests.support.services import Services

MODULE = "leveret_dispatcher.main"


class Autopilot:
    """A one-slot worker that behaves: it runs a grant once, answers repeated ones, and lists what is not settled."""

    def __init__(self, worker: FakeWorker) -> None:
        self.worker = worker
        self.slot = token()
        self.listed: dict[str, Grant] = {}
        self.ran: list[int] = []
        self._read = 0

    async def fly(self) -> None:
        turn = 0
        while True:
            turn += 1
            # an offer that changes with every beat has each of them written down
            self.worker.offer = self.worker.offer.model_copy(update={"tags": (f"turn={turn}",)})
            await self.obey()
            lists = tuple(held(grant, AttemptState.ENDED, 2) for grant in self.listed.values())
            await self.worker.beat(self.slot, held=lists)
            await asyncio.sleep(0.1)

    async def obey(self) -> None:
        news = self.worker.inbox.all[self._read :]
        self._read += len(news)
        for said in news:
            if isinstance(said, Grant):
                await self._take(said)
            elif isinstance(said, Settle | Abandon):
                for over in said.grants if isinstance(said, Settle) else (said.grant,):
                    self.listed.pop(over, None)

    async def _take(self, grant: Grant) -> None:
        if grant.grant in self.listed:
            await self.worker.succeed(grant, seq=2)
        elif grant.token == self.slot:
            self.slot = token()
            self.listed[grant.grant] = grant
            self.ran.append(grant.facts.job)
            await self.worker.run(grant)
            await self.worker.succeed(grant)


async def give_work(lab: Lab) -> tuple[int, int, int]:
    """Submit a job that runs, one that is cancelled and one that waits too long, and file a dead letter.

    So everything that has a failpoint has something to do.
    """
    triggers = {"triggers": [{"action": "email", "condition": "always", "to": "a@example.org"}]}
    runs, cancelled = await lab.submit(manifest=triggers), await lab.submit(manifest=triggers)
    nowhere = REQUIREMENT.model_copy(update={"image": "nowhere"})
    late = await lab.submit(manifest=triggers, requirement=nowhere, queue_deadline=0.1)
    command = CancelJob(job=cancelled)
    await publish(
        lab.channel, COMMANDS, keys.command("cancel", "~alice"), command, delivery_mode=DeliveryMode.PERSISTENT
    )
    dead = await lab.channel.get_exchange(DEAD, ensure=False)
    await dead.publish(aio_pika.Message(b"dead", type="t", delivery_mode=DeliveryMode.PERSISTENT), "some.queue")
    return runs, cancelled, late


async def test_killed_at_every_failpoint_it_loses_and_doubles_nothing(lab: Lab, services: Services) -> None:
    environment = lab.environment(leader_renew=0.1, leader_stale=0.5)
    jobs: list[tuple[int, int, int]] = []
    async with lab.worker() as worker, asyncio.TaskGroup() as group:
        pilot = Autopilot(worker)
        flight = group.create_task(pilot.fly())
        for failpoint in FAILPOINTS:
            crashing = await services.start(MODULE, environment, failpoint=failpoint)
            jobs.append(await give_work(lab))
            await crashing.until_crashed()
        await services.start(MODULE, environment)
        for runs, cancelled, late in jobs:
            ended = await lab.job_is(runs, JobStatus.SUCCESS)
            assert ended.attempt == 1
            await lab.events.until(JobEvent, lambda e, job=cancelled: e.facts.job == job and e.status.ended)  # type: ignore[misc]
            await lab.notified.until(EndedJob, lambda e, job=cancelled: e.facts.job == job)  # type: ignore[misc]
            await lab.job_is(late, JobStatus.TIMEOUT)
        flight.cancel()
    for three in jobs:
        for job in three:
            course = lab.course(job)
            assert sum(JobStatus(status).ended for status in course) == 1, course
            assert JobStatus(course[-1]).ended
    assert len(pilot.ran) == len(set(pilot.ran))
    assert {runs for runs, *_ in jobs} <= set(pilot.ran)


async def test_a_killed_leader_is_replaced_when_its_row_is_stale(lab: Lab, services: Services) -> None:
    environment = lab.environment(leader_renew=0.1, leader_stale=0.5)
    leader = await services.start(MODULE, environment)
    async with lab.worker() as worker:
        await worker.beat(token())
        job = await lab.submit()
        grant = await worker.grant_of(job)
        await services.start(MODULE, environment)
        await leader.kill()
        await worker.beat(held=(held(grant),))
        await worker.succeed(grant)
        assert (await lab.job_is(job, JobStatus.SUCCESS)).attempt == 1
