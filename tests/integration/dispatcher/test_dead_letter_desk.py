"""The dead-letter desk over a real broker and database: filed, listed, published again, dropped, and never too many."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
import asyncpg
import pytest
from aio_pika.abc import AbstractIncomingMessage
from pydantic import SecretStr

from leveret_client import Client, NotAllowed
from leveret_proto import permissions
from leveret_proto.messages import (
    AttemptState,
    CommandFailed,
    DeadDoneReply,
    DeadListReply,
    DeadReply,
    DropDead,
    JobStatus,
    ListDead,
    RetryDead,
    ShowDead,
)
from leveret_proto.topology import DEAD, DISPATCHER_JOBS, INTAKE_SUBMISSIONS, SUBMIT
from leveret_runtime.broker import Consumer, Publisher, connection
from leveret_runtime.dead import file_dead
from tests.integration.dispatcher.dispatcher_lab import Lab, token

LIMIT = 30.0


async def letters(lab: Lab, count: int, **asked: Any) -> DeadListReply:
    """Wait until `count` letters lie on the desk. The answers pace the looks."""
    async with asyncio.timeout(LIMIT):
        while True:
            answer = await lab.command(ListDead(**asked))
            assert isinstance(answer, DeadListReply), answer
            if len(answer.letters) >= count:
                return answer


async def shown(lab: Lab, letter: int) -> DeadReply:
    answer = await lab.command(ShowDead(letter=letter))
    assert isinstance(answer, DeadReply), answer
    return answer


async def retried(lab: Lab, *given: int) -> DeadDoneReply:
    answer = await lab.command(RetryDead(letters=given))
    assert isinstance(answer, DeadDoneReply), answer
    return answer


async def publish(lab: Lab, exchange: str, key: str, body: bytes, **properties: Any) -> None:
    target = await lab.channel.get_exchange(exchange, ensure=False)
    await target.publish(aio_pika.Message(body, **properties), key)


async def reject(lab: Lab, queue: str) -> None:
    """Have the broker give up the next message of `queue`."""
    source = await lab.channel.get_queue(queue, ensure=False)
    async with asyncio.timeout(LIMIT), source.iterator() as messages:
        async for message in messages:
            await message.reject(requeue=False)
            return


@asynccontextmanager
async def arriving(lab: Lab, queue: str) -> AsyncIterator["asyncio.Queue[AbstractIncomingMessage]"]:
    arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
    source = await lab.channel.get_queue(queue, ensure=False)
    tag = await source.consume(arrived.put, no_ack=True)
    yield arrived
    await source.cancel(tag)


async def file_as_intake(lab: Lab, reason: str) -> None:
    """File the next submission as intake does: under its own account, by its own code."""
    async with connection(SecretStr(lab.vhost.url("intake")), "intake") as on:
        publisher = await Publisher.open(on)
        consumer = await Consumer.open(on, INTAKE_SUBMISSIONS, prefetch=1)
        async with asyncio.timeout(LIMIT):
            await file_dead(publisher, await anext(consumer), INTAKE_SUBMISSIONS, reason, app="intake")


async def test_what_a_service_files_goes_back_as_it_came(lab: Lab) -> None:
    headers = {"note": "é", "tags": ["a", "b"], "priority": 7, "secrets": False, "big": 2**40, "table": {"x": 1.5}}
    async with lab.dispatcher():
        await publish(
            lab, SUBMIT, "~ada.p", b"image: [", type="job.submission.v1", message_id="m1",
            content_type="application/yaml", headers=headers,
        )  # fmt: skip
        await file_as_intake(lab, "no manifest")
        (view,) = (await letters(lab, 1)).letters
        assert (view.queue, view.reason, view.service, view.whole) == (
            INTAKE_SUBMISSIONS,
            "no manifest",
            "intake",
            True,
        )
        assert (view.exchange, view.key, view.message_id) == (SUBMIT, "~ada.p", "m1")
        assert base64.b64decode((await shown(lab, view.letter)).body) == b"image: ["
        async with arriving(lab, INTAKE_SUBMISSIONS) as arrived, asyncio.timeout(LIMIT):
            assert await retried(lab, view.letter) == DeadDoneReply(done=(view.letter,))
            again = await arrived.get()
        assert (again.exchange, again.routing_key, again.body) == (SUBMIT, "~ada.p", b"image: [")
        assert (again.type, again.message_id, again.content_type) == ("job.submission.v1", "m1", "application/yaml")
        assert dict(again.headers) == headers
        assert (await letters(lab, 0)).total == 0
        (refusal,) = (await retried(lab, view.letter)).refused
        assert refusal.why == "there is no such letter"


async def test_what_the_broker_gives_up_keeps_its_history_and_goes_back_without_it(lab: Lab) -> None:
    forged = {"x-leveret-exchange": "leveret.control", "x-leveret-key": "w1.s", "x-leveret-service": "intake", "a": 1}
    async with lab.dispatcher():
        await publish(lab, SUBMIT, "~ada.p", b"image: x", message_id="m2", headers=forged)
        await reject(lab, INTAKE_SUBMISSIONS)
        (view,) = (await letters(lab, 1)).letters
        assert (view.queue, view.reason, view.service) == (INTAKE_SUBMISSIONS, "rejected", None)
        assert (view.exchange, view.key, view.message_id) == (SUBMIT, "~ada.p", "m2")
        death = json.loads((await shown(lab, view.letter)).history)["x-death"][0]
        assert (death["queue"], death["reason"], death["routing-keys"]) == (INTAKE_SUBMISSIONS, "rejected", ["~ada.p"])
        async with arriving(lab, INTAKE_SUBMISSIONS) as arrived, asyncio.timeout(LIMIT):
            assert (await retried(lab, view.letter)).done == (view.letter,)
            assert dict((await arrived.get()).headers) == forged


async def test_a_retried_job_runs(lab: Lab) -> None:
    async with lab.worker() as worker:
        job = await lab.submit()
        await reject(lab, DISPATCHER_JOBS)
        async with lab.dispatcher():
            await worker.beat(token())
            (view,) = (await letters(lab, 1, queue=DISPATCHER_JOBS)).letters
            await retried(lab, view.letter)
            await worker.succeed(await worker.grant_of(job))
            await lab.job_is(job, JobStatus.SUCCESS)


async def test_what_can_not_go_back_stays_with_a_reason(lab: Lab) -> None:
    async with lab.dispatcher():
        await publish(lab, SUBMIT, "~ada.p", b"x" * 70_000)
        await reject(lab, INTAKE_SUBMISSIONS)
        await publish(lab, DEAD, INTAKE_SUBMISSIONS, b"", headers={"x-leveret-exchange": "leveret.control"})
        await publish(lab, DEAD, "nobody", b"", headers={"x-leveret-exchange": "", "x-leveret-headers": "{}"})
        found = await letters(lab, 3)
        answer = await retried(lab, *(view.letter for view in found.letters))
        assert not answer.done
        by_letter = {one.letter: one.why for one in answer.refused}
        assert [by_letter[view.letter] for view in reversed(found.letters)] == [
            "only 65536 of its 70000 bytes were kept",
            "its headers could not be kept",
            "'nobody' is none of Leveret's queues",
        ]
        assert (await letters(lab, 3)).total == 3


async def test_a_letter_that_no_queue_takes_stays(lab: Lab) -> None:
    async with lab.dispatcher():
        await publish(lab, SUBMIT, "~ada.p", b"image: x")
        await reject(lab, INTAKE_SUBMISSIONS)
        (view,) = (await letters(lab, 1)).letters
        queue = await lab.channel.get_queue(INTAKE_SUBMISSIONS, ensure=False)
        await queue.unbind(SUBMIT, "*.*")
        (refusal,) = (await retried(lab, view.letter)).refused
        assert "no queue takes" in refusal.why
        assert (await letters(lab, 1)).letters == (view,)


async def test_letters_are_listed_by_page_and_queue_and_dropped(lab: Lab) -> None:
    async with lab.dispatcher():
        for number in range(4):
            await publish(lab, DEAD, f"queue.{number % 2}", b"x")
        found = [view.letter for view in (await letters(lab, 4)).letters]
        assert found == sorted(found, reverse=True)
        page = await letters(lab, 1, limit=1, before=found[0])
        assert ([view.letter for view in page.letters], page.more, page.total) == ([found[1]], True, 4)
        only = await letters(lab, 2, queue="queue.0")
        assert {view.queue for view in only.letters} == {"queue.0"}
        dropped = await lab.command(DropDead(letters=(found[0], found[3], found[0], 10**6)))
        assert isinstance(dropped, DeadDoneReply)
        assert (set(dropped.done), [one.letter for one in dropped.refused]) == ({found[0], found[3]}, [10**6])
        rest = await letters(lab, 2)
        assert ([view.letter for view in rest.letters], rest.total) == (found[1:3], 2)
        gone = await lab.command(ShowDead(letter=found[0]))
        assert isinstance(gone, CommandFailed) and gone.code == "not-found"


async def on_the_desk(lab: Lab, last: str) -> tuple[list[asyncpg.Record], asyncpg.Record]:
    """The rows once the letter from queue `last` is filed, and the desk's sums."""
    database = await asyncpg.connect(lab.database.dsn)
    try:
        await letters(lab, 1, queue=last)
        sums = await database.fetchrow("select letters, bytes, dropped from dispatch.dead_desk")
        assert sums is not None
        return await database.fetch("select * from dispatch.dead order by id"), sums
    finally:
        await database.close()


async def test_letters_are_bounded_in_number(lab: Lab) -> None:
    async with lab.dispatcher(dead_most=3):
        for number in range(6):
            await publish(lab, DEAD, f"queue.{number}", b"x" * 100_000, type="t")
        rows, sums = await on_the_desk(lab, "queue.5")
        assert [row["queue"] for row in rows] == ["queue.3", "queue.4", "queue.5"]
        assert {(row["bytes"], len(row["body"])) for row in rows} == {(100_000, 64 * 1024)}
        assert (sums["letters"], sums["dropped"], sums["bytes"]) == (3, 3, sum(row["kept"] for row in rows))


async def test_letters_are_bounded_in_bytes(lab: Lab) -> None:
    most = 1024 * 1024
    async with lab.dispatcher(dead_bytes_most=most):
        for number in range(300):
            await publish(lab, DEAD, f"small.{number}", b"x")
        for number in range(20):
            await publish(lab, DEAD, f"large.{number}", b"x" * 60_000)
        rows, sums = await on_the_desk(lab, "large.19")
        taken = sum(row["kept"] for row in rows)
        assert most - 70_000 < taken <= most
        # the oldest went, no more than had to
        names = [f"small.{n}" for n in range(300)] + [f"large.{n}" for n in range(20)]
        assert [row["queue"] for row in rows] == names[-len(rows) :]
        assert (sums["letters"], sums["bytes"], sums["dropped"]) == (len(rows), taken, 320 - len(rows))


async def test_a_flood_of_dead_letters_stops_nothing_else(lab: Lab) -> None:
    """Jobs go on being granted and ended while 5,000 letters are filed."""
    flood, kept, jobs = 5000, 500, 20
    async with lab.dispatcher(dead_most=kept), lab.worker() as worker:
        await worker.beat(token())
        await lab.submit()
        await worker.succeed(await worker.grant_of(1))
        await lab.job_is(1, JobStatus.SUCCESS)
        async with asyncio.TaskGroup() as group:
            pouring = group.create_task(pour(lab, flood))
            during = 0
            for _ in range(jobs):
                await worker.claim(token())
                job = await lab.submit()
                grant = await worker.grant_of(job)
                await worker.status(grant, AttemptState.RUNNING)
                await worker.succeed(grant)
                await lab.job_is(job, JobStatus.SUCCESS)
                during += not pouring.done() or await behind(lab)
        rows, sums = await on_the_desk(lab, "flood.last")
        assert during, "the flood was over before the first job: it proves nothing"
        assert (len(rows), sums["letters"], sums["dropped"]) == (kept, kept, flood + 1 - kept)


async def pour(lab: Lab, count: int) -> None:
    """Publish letters as fast as the broker takes them, on a connection of their own."""
    async with connection(SecretStr(lab.vhost.url()), "flood") as on:
        channel = await on.channel(publisher_confirms=False)
        target = await channel.get_exchange(DEAD, ensure=False)
        for number in range(count):
            await target.publish(aio_pika.Message(b"x" * 1000, type="t"), f"flood.{number}")
        await target.publish(aio_pika.Message(b"x", type="t"), "flood.last")
        await (await on.channel()).close()  # answered behind all of them


async def behind(lab: Lab) -> bool:
    """Whether letters are still to be filed."""
    answer = await lab.command(ListDead(limit=1, queue="flood.last"))
    return isinstance(answer, DeadListReply) and not answer.letters


@pytest.mark.parametrize(
    ("account", "granted", "allowed"),
    [
        ("alice", permissions.submitter(("~alice",)), False),
        ("board", permissions.subscriber("board", ("~alice",)), False),
        ("root", permissions.operator(), True),
    ],
)
async def test_the_desk_is_open_to_operators_alone(
    lab: Lab, account: str, granted: permissions.Permissions, allowed: bool
) -> None:
    """Real accounts at the real broker: a submitter's command does not even get to the dispatcher."""
    await lab.vhost.provision({account: granted})
    async with lab.dispatcher():
        await publish(lab, DEAD, "queue", b"x")
        (view,) = (await letters(lab, 1)).letters
        asks: list[Callable[[Client], Awaitable[object]]] = [
            lambda client: client.dead_letters(),
            lambda client: client.dead_letter(view.letter),
            lambda client: client.retry_dead([view.letter]),
            lambda client: client.drop_dead([view.letter]),
        ]
        for ask in asks:
            # a connection each: the broker closes the channel of whoever tries what it may not
            async with Client(lab.vhost.url(account), "~alice") as client:
                if allowed:
                    await ask(client)
                else:
                    with pytest.raises(NotAllowed):
                        await ask(client)
        assert (await letters(lab, 0)).total == (0 if allowed else 1)
