"""The outbox with a real broker and database: order, no gaps, repeats that are recognised."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage
from pydantic import SecretStr

from leveret_proto.definitions import shape
from leveret_proto.envelope import Parcel, unpack_as
from leveret_proto.messages import ShowJob
from leveret_proto.topology import EVENTS, NOTIFY, RECORD
from leveret_runtime.broker import Consumer, Publisher, Refused, connection, settle
from leveret_runtime.db import Connection, Database
from leveret_runtime.outbox import Outbox, lag, next_seq, number, put, put_all
from tests.support import databases
from tests.support.services import Services
from tests.support.vhosts import Vhost

LIMIT = 30.0


@dataclass
class Lab:
    """A schema with an outbox, and a broker with a queue on RECORD."""

    schema: Database
    on: AbstractConnection
    vhost: Vhost

    async def queue(self, name: str = "record", exchange: str = RECORD, **arguments: object) -> None:
        channel = await self.on.channel()
        queue = await channel.declare_queue(name, durable=True, arguments=dict(arguments))  # type: ignore[arg-type]
        await queue.bind(exchange, "#")

    async def fill(self, jobs: int, events: int) -> None:
        """Put `events` events for each of `jobs` jobs; a `ShowJob`'s number stands for the seq."""
        for _ in range(events):
            for job in range(1, jobs + 1):
                async with self.schema.transaction() as on:
                    seq = await next_seq(on, job)
                    await put(on, job, RECORD, f"job.public.o.{job}.x", ShowJob(job=seq))

    async def unsent(self) -> int:
        async with self.schema.connection() as on:
            count: int = await on.fetchval("select count(*) from outbox")
        return count

    async def received(self, count: int, queue: str = "record") -> list[AbstractIncomingMessage]:
        consumer = await Consumer.open(self.on, queue, prefetch=1000)
        async with asyncio.timeout(LIMIT):
            found = [await consumer.__anext__() for _ in range(count)]
        await settle(found[-1], multiple=True)
        return found


@pytest.fixture
async def lab(schema: Database, on: AbstractConnection, vhost: Vhost) -> Lab:
    # the exchanges alone: what they feed is each test's
    await vhost.load({"exchanges": shape(vhost.name)["exchanges"]})
    return Lab(schema, on, vhost)


@asynccontextmanager
async def running(lab: Lab, *outboxes: Outbox, publisher: Publisher | None = None) -> AsyncIterator[None]:
    """Outboxes at work; at the end they send what is left and stop."""
    stop = asyncio.Event()
    public = await Publisher.open(lab.on, confirms=False)
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        for outbox in outboxes:
            group.create_task(outbox.run(publisher or await Publisher.open(lab.on), public, stop))
        yield
        stop.set()


def by_job(found: list[AbstractIncomingMessage]) -> dict[str, list[int]]:
    """Routing key → the seqs in the order they came."""
    made: dict[str, list[int]] = defaultdict(list)
    for message in found:
        made[message.routing_key or ""].append(unpack_as(ShowJob, message.body, message.type).job)
    return made


async def test_each_job_is_told_of_in_order_and_without_a_gap(lab: Lab) -> None:
    await lab.queue()
    await lab.fill(jobs=3, events=5)
    async with running(lab, Outbox(lab.schema, "test")):
        found = await lab.received(15)
    assert by_job(found) == {f"job.public.o.{job}.x": [1, 2, 3, 4, 5] for job in (1, 2, 3)}
    assert {message.app_id for message in found} == {"test"}
    assert await lab.unsent() == 0


async def test_what_leaves_for_the_record_is_copied_to_the_public(lab: Lab) -> None:
    await lab.queue()
    await lab.queue("public", EVENTS)
    await lab.fill(jobs=1, events=3)
    async with running(lab, Outbox(lab.schema, "test")):
        record, public = await lab.received(3), await lab.received(3, "public")
    assert [message.message_id for message in record] == [message.message_id for message in public]


async def test_what_waits_in_the_outbox_is_counted_at_each_look(lab: Lab) -> None:
    await lab.queue()
    await lab.fill(jobs=1, events=3)
    waiting, oldest = await lag(lab.schema)()
    assert waiting.samples[0].value == 3
    assert oldest.samples[0].value > 0
    async with running(lab, Outbox(lab.schema, "test")):
        await lab.received(3)
    assert [family.samples[0].value for family in await lag(lab.schema)()] == [0, 0]


async def test_a_wake_is_enough(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leveret_runtime.outbox.IDLE", 3600.0)
    await lab.queue()
    outbox = Outbox(lab.schema, "test")
    consumer = await Consumer.open(lab.on, "record", prefetch=1000)
    async with running(lab, outbox):
        for count in (1, 2):
            await lab.fill(jobs=1, events=1)
            outbox.wake()
            assert by_job([await consumer.__anext__()]) == {"job.public.o.1.x": [count]}


async def test_two_outboxes_on_one_schema_never_send_out_of_order(lab: Lab) -> None:
    """A leader that has been replaced may still be running."""
    await lab.queue()
    async with running(lab, *[Outbox(lab.schema, "test") for _ in range(3)]):
        await lab.fill(jobs=3, events=20)
        found = await lab.received(60)
    assert by_job(found) == {f"job.public.o.{job}.x": list(range(1, 21)) for job in (1, 2, 3)}


async def test_a_job_has_one_unconfirmed_event_at_a_time(lab: Lab) -> None:
    await lab.queue()
    await lab.fill(jobs=2, events=3)
    under_way: list[str] = []

    class Watching(Publisher):
        async def send(self, exchange: str, key: str, parcel: Parcel, **more: object) -> None:  # type: ignore[override]
            assert key not in under_way
            under_way.append(key)
            await super().send(exchange, key, parcel, **more)  # type: ignore[arg-type]
            under_way.remove(key)

    publisher = Watching((await Publisher.open(lab.on))._channel)
    async with running(lab, Outbox(lab.schema, "test"), publisher=publisher):
        await lab.received(6)


async def test_an_event_that_is_refused_holds_back_its_own_job_alone(lab: Lab) -> None:
    await lab.queue()
    await lab.fill(jobs=2, events=3)
    refusals = 0

    class Full(Publisher):
        async def send(self, exchange: str, key: str, parcel: Parcel, **more: object) -> None:  # type: ignore[override]
            nonlocal refusals
            if ".1." in key and refusals < 2:
                refusals += 1
                raise Refused("full")
            await super().send(exchange, key, parcel, **more)  # type: ignore[arg-type]

    outbox = Outbox(lab.schema, "test")
    async with running(lab, outbox, publisher=Full((await Publisher.open(lab.on))._channel)):
        found = await lab.received(6)
    assert by_job(found) == {f"job.public.o.{job}.x": [1, 2, 3] for job in (1, 2)}
    assert refusals == 2


async def test_nothing_is_lost_while_nobody_takes_it(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leveret_runtime.outbox.IDLE", 0.05)
    await lab.fill(jobs=1, events=2)
    async with running(lab, Outbox(lab.schema, "test")):
        while await lab.unsent() != 2:  # unroutable: it must not be marked as sent
            await asyncio.sleep(0.01)
        await lab.queue()
        assert by_job(await lab.received(2)) == {"job.public.o.1.x": [1, 2]}


async def test_a_guard_that_raises_lets_nothing_out(lab: Lab) -> None:
    await lab.queue()
    await lab.fill(jobs=1, events=1)

    async def fenced(_: Connection) -> None:
        raise PermissionError("another leads")

    publisher = await Publisher.open(lab.on)
    with pytest.raises(PermissionError):
        await Outbox(lab.schema, "test", fenced).run(publisher, publisher, asyncio.Event())
    assert await lab.unsent() == 1


CRASHING = """
import asyncio, sys
from pydantic import SecretStr
from leveret_runtime.broker import Publisher, connection
from leveret_runtime.db import Database
from leveret_runtime.outbox import Outbox

async def main():
    async with connection(SecretStr(sys.argv[1]), "t") as on, Database.open(SecretStr(sys.argv[2]), "notify") as schema:
        stop = asyncio.Event()
        stop.set()
        public = await Publisher.open(on, confirms=False)
        await Outbox(schema, "test").run(await Publisher.open(on), public, stop)

asyncio.run(main())
"""


async def test_a_crash_between_publish_and_sent_repeats_with_the_same_message_id(
    lab: Lab, services: Services, database: databases.Database
) -> None:
    await lab.queue()
    await lab.fill(jobs=1, events=2)
    (services.folder / "outbox_main.py").write_text(CRASHING)
    arguments = (lab.vhost.url(), database.dsn_for("notifier"))
    crashing = await services.start(
        "outbox_main", {}, arguments=arguments, failpoint="test.outbox.between-publish-and-sent", ready=False
    )
    await crashing.until_crashed()
    assert await lab.unsent() == 2
    again = await services.start("outbox_main", {}, arguments=arguments, ready=False)
    assert await again.wait() == 0
    found = await lab.received(4)
    assert by_job(found) == {"job.public.o.1.x": [1, 2, 1, 2]}
    assert [message.message_id for message in found[:2]] == [message.message_id for message in found[2:]]


async def test_what_no_queue_takes_does_not_hold_up_the_rest(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows than a batch has are stuck, and not one of a job's rows overtakes another."""
    monkeypatch.setattr("leveret_runtime.outbox.BATCH", 3)
    await lab.queue()
    async with lab.schema.transaction() as on:
        stuck = [(job, NOTIFY, str(job), ShowJob(job=1)) for job in range(1, 8)]
        after = [(job, RECORD, f"job.public.o.{job}.x", ShowJob(job=2)) for job in (3, 9)]
        await put_all(on, stuck + after)
    consumer = await Consumer.open(lab.on, "record", prefetch=1000)
    async with running(lab, Outbox(lab.schema, "test")):
        assert by_job([await consumer.__anext__()]) == {"job.public.o.9.x": [2]}
        await lab.queue("notify", NOTIFY)
        assert by_job([await consumer.__anext__()]) == {"job.public.o.3.x": [2]}
    assert await lab.unsent() == 0


async def test_numbers_are_given_in_the_callers_transaction(lab: Lab) -> None:
    async def give_up() -> None:
        async with lab.schema.transaction() as on:
            assert await next_seq(on, 7) == 1
            raise LookupError

    with pytest.raises(LookupError):
        await give_up()
    async with lab.schema.transaction() as on:
        assert [await next_seq(on, 7) for _ in range(3)] == [1, 2, 3]
        assert await number(on, {7: 2, 8: 3}) == {7: 4, 8: 1}
        assert [await next_seq(on, 7), await next_seq(on, 8)] == [6, 4]


async def test_many_rows_keep_their_order(lab: Lab) -> None:
    await lab.queue()
    async with lab.schema.transaction() as on:
        await put_all(on, [(1, RECORD, "job.public.o.1.x", ShowJob(job=seq)) for seq in range(1, 31)])
    async with running(lab, Outbox(lab.schema, "test")):
        assert by_job(await lab.received(30)) == {"job.public.o.1.x": list(range(1, 31))}


async def test_an_outbox_that_stops_sends_what_is_left(lab: Lab) -> None:
    await lab.queue()
    await lab.fill(jobs=2, events=2)
    async with asyncio.timeout(LIMIT), connection(SecretStr(lab.vhost.url()), "test") as on:
        stop = asyncio.Event()
        stop.set()
        await Outbox(lab.schema, "test").run(await Publisher.open(on), await Publisher.open(on, confirms=False), stop)
    assert await lab.unsent() == 0


async def test_jobs_are_numbered_in_one_order_so_that_nobody_waits_in_a_circle(lab: Lab) -> None:
    waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"

    async def number_both() -> None:
        async with lab.schema.transaction() as on:
            await number(on, {2: 1, 1: 1})

    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        async with lab.schema.transaction() as first:
            await number(first, {1: 1})
            group.create_task(number_both())
            async with lab.schema.connection() as aside:
                while not await aside.fetchval(waiting):
                    await asyncio.sleep(0.01)
            # it waits for job 1 and holds nothing of job 2 meanwhile
            assert await number(first, {2: 1}) == {2: 1}


async def test_a_slow_chain_is_sent_in_several_transactions(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent is noted before the database would lose patience with an open transaction."""
    monkeypatch.setattr("leveret_runtime.outbox.CHAIN_LIMIT", 0.0)
    batches: list[int] = []

    async def guard(on: Connection) -> None:
        batches.append(await on.fetchval("select count(*) from outbox"))

    await lab.queue()
    await lab.fill(jobs=1, events=3)
    async with running(lab, Outbox(lab.schema, "test", guard)):
        assert by_job(await lab.received(3)) == {"job.public.o.1.x": [1, 2, 3]}
    assert batches[:3] == [3, 2, 1]
