"""One dispatcher leads: handing over, freezing, and the fence against a predecessor."""

import asyncio
import os
import signal
from uuid import uuid4

import pytest

from leveret_dispatcher import store
from leveret_dispatcher.leader import Deposed, Leadership, take
from leveret_proto.messages import JobStatus, Report
from leveret_runtime.away import DatabaseAway
from leveret_runtime.db import Database
from tests.integration.dispatcher.dispatcher_lab import Lab, held, ready_job, token
from tests.support.services import Services

MODULE = "leveret_dispatcher.main"


async def test_a_standby_takes_over_at_once_when_the_leader_is_stopped(lab: Lab, services: Services) -> None:
    environment = lab.environment(leader_renew=5, leader_stale=600)  # only a release can let the standby in
    leader = await services.start(MODULE, environment)
    async with lab.worker() as worker:
        await worker.beat(token())
        job = await lab.submit()
        grant = await worker.grant_of(job)
        assert grant.epoch == 1
        await services.start(MODULE, environment)
        os.kill(leader.pid, signal.SIGTERM)
        assert await leader.wait() == 0
        await worker.inbox.until(Report)
        await worker.beat(token(), held=(held(grant),))
        await worker.succeed(grant)
        await lab.job_is(job, JobStatus.SUCCESS)
        assert (await worker.grant_of(await lab.submit())).epoch == 2


async def test_a_frozen_leader_is_replaced_and_stands_by_when_it_wakes(lab: Lab, services: Services) -> None:
    environment = lab.environment(leader_renew=0.1, leader_stale=1.0, heartbeat=1)
    frozen = await services.start(MODULE, environment)
    async with lab.worker() as worker:
        await worker.beat(token())
        first = await worker.grant_of(await lab.submit())
        os.kill(frozen.pid, signal.SIGSTOP)
        successor = await services.start(MODULE, environment)
        await worker.inbox.until(Report)
        await worker.beat(token(), held=(held(first),))
        second = await worker.grant_of(await lab.submit())
        assert second.epoch == 2
        os.kill(frozen.pid, signal.SIGCONT)
        for grant in (first, second):
            await worker.succeed(grant)
            await lab.job_is(grant.facts.job, JobStatus.SUCCESS)
        os.kill(successor.pid, signal.SIGTERM)
        assert await successor.wait() == 0
        await worker.inbox.until(Report, nth=2)
        await worker.beat(token())
        assert (await worker.grant_of(await lab.submit())).epoch == 3
        for job in (1, 2):
            assert lab.course(job)[-1] == "success"


async def write_under(database: Database, leadership: Leadership) -> None:
    async with database.transaction() as on:
        await store.insert_jobs(on, [store.NewJob(ready_job(1), 60.0, 60.0)])
        await leadership.check(on)


async def test_a_woken_predecessor_can_change_nothing(lab: Lab) -> None:
    async with Database.open(lab.config().database_url, "dispatch") as database:
        await database.migrate("leveret_dispatcher")
        assert await take(database, uuid4(), stale=600) == 1
        old = Leadership(database, 1, renew=0.01)
        assert await take(database, uuid4(), stale=600) is None  # it is held, and not stale
        assert await take(database, uuid4(), stale=0) == 2
        with pytest.raises(Deposed):
            await write_under(database, old)
        with pytest.raises(Deposed):
            await old.keep()
        await old.release()  # must not let anyone in
        assert await take(database, uuid4(), stale=600) is None
        async with database.connection() as on:
            assert await store.find_job(on, 1) is None


async def test_a_successor_waits_for_what_the_leader_has_under_way_but_renewing_does_not(lab: Lab) -> None:
    order: list[str] = []

    async with Database.open(lab.config().database_url, "dispatch") as database:
        await database.migrate("leveret_dispatcher")
        epoch = await take(database, uuid4(), stale=600)
        assert epoch == 1
        leadership = Leadership(database, epoch, renew=0.01)

        async def succeed() -> None:
            await take(database, uuid4(), stale=600)
            order.append("taken")

        async with asyncio.TaskGroup() as group:
            async with database.transaction() as on:
                await leadership.check(on)
                async with database.connection() as other, asyncio.timeout(5):
                    await other.execute("update leader set renewed_at = clock_timestamp(), holder = null")
                group.create_task(succeed())
                async with asyncio.timeout(10), database.connection() as watcher:
                    while not await watcher.fetchval("select exists (select from pg_locks where not granted)"):
                        await asyncio.sleep(0.01)
                order.append("committed")
        assert order == ["committed", "taken"]


async def dawdle(database: Database, leadership: Leadership) -> None:
    async with database.transaction() as on:
        await leadership.check(on)
        async with asyncio.timeout(5):
            assert await take(database, uuid4(), stale=0) == 2


async def test_a_transaction_of_a_leader_gone_stale_holds_nobody_up(lab: Lab) -> None:
    async with Database.open(lab.config().database_url, "dispatch") as database:
        await database.migrate("leveret_dispatcher")
        epoch = await take(database, uuid4(), stale=600)
        assert epoch == 1
        with pytest.raises(DatabaseAway):
            await dawdle(database, Leadership(database, epoch, renew=1))
