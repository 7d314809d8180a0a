"""Replay over the broker: an owner's past from the stream, from memory, and across the seam between them."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aio_pika
import pytest
from pydantic import SecretStr

from leveret_client import Client, CommandRefused, Cursor, CursorMemory, NotAllowed, resuming
from leveret_client.replaying import events_of
from leveret_logsink import past as past_module
from leveret_logsink.past import Past, PastTheEndError
from leveret_logsink.replay_page import Page
from leveret_logsink.ring import Ring
from leveret_proto import keys, topology
from leveret_proto.envelope import pack, unpack
from leveret_proto.messages import (
    CommandFailed,
    Event,
    JobEvent,
    JobStatus,
    LogHistory,
    Reason,
    Replay,
    Visibility,
    WorkerEvent,
)
from leveret_runtime.broker import Publisher, connection
from tests.integration.logsink.stage import LIMIT, Stage, facts
from tests.support.vhosts import Vhost

START = datetime.now(UTC) - timedelta(hours=1)


def event(
    job: int, seq: int = 1, *, owner: str = "alice", seen: Visibility = Visibility.PRIVATE, at: datetime = START
) -> JobEvent:
    return JobEvent(
        facts=facts(job, owner=owner, visibility=seen), source="dispatcher", seq=seq, at=at,
        status=JobStatus.PENDING, reason=Reason.SUBMITTED,
    )  # fmt: skip


class Recorder:
    """Publishes to the record as the dispatcher does."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def job(self, told: JobEvent) -> None:
        key = keys.job_event(told.facts.visibility, told.facts.owner, told.facts.job, told.status)
        await self._publisher.send(topology.RECORD, key, pack(told), app="dispatcher")

    async def jobs(self, told: Sequence[JobEvent]) -> None:
        """In this order, one after the other as far as the broker goes: one channel keeps it."""
        async with asyncio.TaskGroup() as group:
            for one in told:
                group.create_task(self.job(one))

    async def worker(self, name: str) -> None:
        told = WorkerEvent(worker=name, state="joined", at=START)
        await self._publisher.send(topology.RECORD, keys.worker_event(name, "joined"), pack(told), app="dispatcher")


@asynccontextmanager
async def recording(vhost: Vhost) -> AsyncIterator[Recorder]:
    async with connection(SecretStr(vhost.url("dispatcher")), "test recorder") as on:
        yield Recorder(await Publisher.open(on))


@pytest.fixture
async def record(stage: Stage) -> AsyncIterator[Recorder]:
    async with recording(stage.vhost) as recorder:
        yield recorder


@pytest.fixture
async def alice(stage: Stage) -> AsyncIterator[Client]:
    async with asyncio.timeout(LIMIT * 3), Client(stage.vhost.url("alice"), "alice", limit=LIMIT) as client:
        yield client


async def jobs(client: Client, **asked: Any) -> list[int]:
    """The jobs whose events are replayed, in their order; 0 stands for a worker's event."""
    told = [event for _, event in await replayed(client, **asked)]
    return [told_.facts.job if isinstance(told_, JobEvent) else 0 for told_ in told]


async def replayed(client: Client, *, after: int | None = None, **asked: Any) -> list[tuple[int, Event]]:
    """All pages' events, each with its place."""
    told: list[tuple[int, Event]] = []
    while True:
        page = await client.replay_page(after=after, **asked)
        told += events_of(page)
        if page.end:
            return told
        after = after if page.next is None else page.next


async def test_an_empty_stream_has_an_end_and_grows(stage: Stage, record: Recorder, alice: Client) -> None:
    await stage.logsink()
    assert await jobs(alice) == []
    assert await jobs(alice, since=START) == []
    page = await alice.replay_page()
    await record.jobs([event(1), event(2)])
    while (later := await alice.replay_page(after=page.next)).next == page.next:
        assert later.end  # the event is confirmed: it is on its way to the reader
    while len(later.events) < 2:
        later = await alice.replay_page(after=page.next)
    assert [given.body["facts"]["job"] for given in later.events] == [1, 2]  # type: ignore[index,call-overload]
    assert later.end
    assert await jobs(alice) == [1, 2]


async def test_of_others_an_owner_is_given_what_is_public_alone(stage: Stage, record: Recorder, alice: Client) -> None:
    for job, (owner, seen) in enumerate([(o, s) for o in ("alice", "bob") for s in Visibility], 1):
        await record.job(event(job, owner=owner, seen=seen))
    await record.worker("w1")
    await stage.logsink()
    assert await jobs(alice) == [1, 2, 3]
    assert await jobs(alice, public=True) == [1, 2, 3, 4]
    assert await jobs(alice, workers=True) == [1, 2, 3, 0]
    assert await jobs(alice, job=2) == [2]
    assert await jobs(alice, job=4, public=True) == [4]
    assert await jobs(alice, job=5, public=True) == []
    # those were read from the broker; what comes now is read from memory
    after = (await alice.replay_page()).next
    for job, (owner, seen) in enumerate([(o, s) for o in ("bob", "alice") for s in Visibility], 11):
        await record.job(event(job, owner=owner, seen=seen))
    while (told := await jobs(alice, after=after)) != [14, 15, 16]:
        assert told in ([], [14], [14, 15])  # confirmed, and on its way
    assert await jobs(alice, after=after, public=True) == [11, 14, 15, 16]
    assert await jobs(alice, after=after, job=12, public=True) == []
    async with Client(stage.vhost.url("alice"), "bob") as other:
        with pytest.raises(NotAllowed):
            await other.replay_page()


async def test_since_and_after_are_exact(stage: Stage, record: Recorder, alice: Client) -> None:
    # one confirmed after the other: each in a chunk of its own
    for n in range(8):
        await record.job(event(n + 1, at=START + timedelta(seconds=n)))
    await stage.logsink()
    assert await jobs(alice) == list(range(1, 9))
    assert await jobs(alice, since=START + timedelta(seconds=5)) == [6, 7, 8]
    assert await jobs(alice, since=START + timedelta(seconds=5, microseconds=1)) == [7, 8]
    for none in (datetime.now(UTC), datetime.now(UTC) + timedelta(days=1), datetime.max.replace(tzinfo=UTC)):
        assert await jobs(alice, since=none) == []
    assert await jobs(alice, since=datetime.min.replace(tzinfo=UTC)) == list(range(1, 9))
    told: list[int] = []
    after: int | None = None
    for _ in range(3):
        page = await alice.replay_page(after=after, limit=3)
        assert (len(page.events), page.end) == ((3, False) if len(told) < 6 else (2, True))
        told += [given.offset for given in page.events]
        after = page.next
    assert told == sorted(set(told))
    assert len(told) == 8
    assert await jobs(alice, after=told[5]) == [7, 8]
    assert await jobs(alice, after=told[2], since=START + timedelta(seconds=6)) == [7, 8]


async def test_two_logsinks_answer_as_one(stage: Stage, record: Recorder, alice: Client) -> None:
    await stage.logsink()
    published = 49
    await record.jobs([event(n) for n in range(1, published + 1)])
    await stage.logsink()
    told: list[int] = []
    after: int | None = None
    while len(told) < 60:
        page = await alice.replay_page(after=after, limit=3)  # each from the other one
        told += [given.body["facts"]["job"] for given in page.events]  # type: ignore[index,call-overload,misc]
        if len(told) == published < 60:  # one that lags a little behind the broker may call an earlier place the end
            published += 1
            await record.job(event(published))
        after = page.next
    assert told == list(range(1, 61))


async def test_records_that_no_reader_could_take_are_passed_over(stage: Stage, record: Recorder, alice: Client) -> None:
    await stage.logsink()
    async with await aio_pika.connect(stage.vhost.url()) as on:
        channel = await on.channel()
        exchange = await channel.get_exchange(topology.RECORD, ensure=False)
        await record.job(event(1))
        for body, type_ in ((b"\xff", "job.event.v1"), (b"{}", "job.event.v1"), (b"{}", "new.v1"), (b"", None)):
            await exchange.publish(aio_pika.Message(body, type=type_), "task.private.alice.1.x.y")
            await exchange.publish(aio_pika.Message(body, type=type_), "x")
        await record.job(event(2))
    while (told := await jobs(alice)) != [1, 2]:
        assert told in ([], [1])


async def test_a_request_that_is_none_is_refused_and_filed(stage: Stage) -> None:
    await stage.logsink()
    reply = await stage.command(keys.command("replay", "alice"), LogHistory(job=1))
    answer = unpack(reply.body, reply.type)
    assert isinstance(answer, CommandFailed)
    assert answer.code == "bad-request"
    dead = await stage.dead.next()
    assert dead.headers["x-leveret-reason"].startswith("expected command.replay.v1")
    # an answer goes to a queue that the broker named, and to no other
    async with connection(SecretStr(stage.vhost.url("alice")), "test") as on:
        publisher = await Publisher.open(on)
        asked = pack(Replay())
        key = keys.command("replay", "alice")
        await publisher.send(topology.COMMANDS, key, asked, app="t", reply_to=topology.DISPATCHER_STATUS)
    await stage.command(key, Replay())
    status = await stage.vhost.api("GET", f"queues/{stage.vhost.name}/{topology.DISPATCHER_STATUS}")
    assert status.get("messages", 0) == 0


async def redeclare(vhost: Vhost, **arguments: Any) -> None:
    """Replace the replay stream by an empty one."""
    where = f"queues/{vhost.name}/{topology.REPLAY}"
    await vhost.api("DELETE", where)
    declared = topology.queue(topology.REPLAY).arguments() | arguments
    await vhost.api("PUT", where, {"durable": True, "arguments": declared})
    await vhost.api("POST", f"bindings/{vhost.name}/e/{topology.RECORD}/q/{topology.REPLAY}", {"routing_key": "#"})


async def asked_for_ever(client: Client, after: int | None) -> None:
    while True:
        await client.replay_page(after=after)


async def test_a_cursor_of_a_stream_that_was_replaced_is_refused_with_what_to_do(
    stage: Stage, record: Recorder, alice: Client
) -> None:
    sink = await stage.logsink()
    await record.jobs([event(n) for n in range(1, 40)])
    while len(await jobs(alice)) < 39:
        pass
    after = (await alice.replay_page(limit=1000)).next
    await redeclare(stage.vhost)
    with pytest.raises(CommandRefused, match=f"place {after} lies past the stream's end, .* begin anew, from a time"):
        await asked_for_ever(alice, after)  # until logsink has heard of it
    # the stream was away, and logs were stored all the same
    log = [json.loads(line) for line in sink.log.read_text().splitlines() if line.startswith("{")]
    assert sum(line["event"] == "ready" for line in log) == 1


async def test_what_the_stream_keeps_no_longer_is_told(stage: Stage, record: Recorder, alice: Client) -> None:
    await redeclare(stage.vhost, **{"x-max-length-bytes": 40_000, "x-stream-max-segment-size-bytes": 10_000})
    note = "x" * 2000
    for n in range(60):
        await record.job(event(n + 1).model_copy(update={"detail": note}))
    await stage.logsink()
    everything = await replayed(alice)
    assert 0 < len(everything) < 60
    assert not (await alice.replay_page()).truncated
    assert await replayed(alice, after=3) == everything
    assert (await alice.replay_page(after=3)).truncated
    first, _ = everything[0]
    assert not (await alice.replay_page(after=first)).truncated
    for begin, missed in ((None, False), (3, True)):
        store = CursorMemory(Cursor(offset=begin))
        async with resuming(lambda: Client(stage.vhost.url("alice"), "alice"), store, follow=False) as arrivals:
            told = [(arrival.event, arrival.missed) async for arrival in arrivals]
        assert told == [(event, missed and at == first) for at, event in everything]


@asynccontextmanager
async def reading(vhost: Vhost, ring: Ring) -> AsyncIterator[Past]:
    """The stream as logsink reads it, with a memory of a size that we choose."""
    stop = asyncio.Event()
    async with (
        asyncio.timeout(LIMIT * 2),
        connection(SecretStr(vhost.url("logsink")), "test past") as on,
        asyncio.TaskGroup() as group,
    ):
        past = Past(on, await Publisher.open(on), ring)
        group.create_task(past.follow(stop))
        yield past
        stop.set()


async def pages(past: Past, **asked: Any) -> tuple[list[int], int]:
    """The jobs that are replayed to alice, and in how many pages."""
    told: list[int] = []
    after: int | None = None
    for count in range(1, 1000):
        page = Page("alice", Replay(after=after, **asked))
        ended = await past.fill(page, asked.get("since"))
        reply = page.reply(end=ended)
        told += [given.body["facts"]["job"] for given in reply.events]  # type: ignore[index,call-overload,misc]
        if ended:
            return told, count
        after = reply.next
    raise AssertionError("no end")


@pytest.mark.parametrize("memory", [1, 7, 100])
async def test_memory_and_broker_join_without_a_seam(vhost: Vhost, memory: int) -> None:
    await vhost.provision()
    async with recording(vhost) as record:
        await record.jobs([event(n) for n in range(1, 31)])
        async with reading(vhost, ring := Ring(memory, 10**6)) as past:
            # memory grows, and drops, while it is read
            async with asyncio.TaskGroup() as group:
                group.create_task(record.jobs([event(n) for n in range(31, 61)]))
                for limit in (1, 4, 1000):
                    told, _ = await pages(past, limit=limit)
                    assert told == list(range(1, len(told) + 1))
                    assert len(told) >= 30
            while (ring.newest or 0) < 59:
                await asyncio.sleep(0.01)
            assert (await pages(past, limit=1000))[0] == list(range(1, 61))
            assert (await pages(past, limit=7, since=START - timedelta(days=1)))[0] == list(range(1, 61))


async def test_where_nobody_asks_nothing_is_kept_in_memory(vhost: Vhost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past_module, "ASKED_FOR", 0.1)
    await vhost.provision()
    async with recording(vhost) as record, reading(vhost, ring := Ring(100, 10**6)) as past:
        for last in (3, 6, 9):
            await record.jobs([event(n) for n in range(last - 2, last + 1)])
            assert ring.newest is None
            assert (await pages(past, limit=2))[0] == list(range(1, last + 1))
            while ring.newest is not None:
                await asyncio.sleep(0.01)


async def test_a_long_way_between_an_owners_events_is_gone_in_steps(
    vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page ends after its time with what was found so far, and the next one goes on where it ended."""
    monkeypatch.setattr(past_module, "PAGE_LIMIT", 0.05)
    await vhost.provision()
    async with recording(vhost) as record:
        sparse = {1, 900, 1999}
        await record.jobs([event(n + 1, owner="alice" if n + 1 in sparse else "bob") for n in range(2000)])
        async with reading(vhost, Ring(10, 10**6)) as past:
            told, count = await pages(past, limit=1000)
    assert told == sorted(sparse)
    assert count > 1  # all three would fit into one


async def test_readings_of_the_broker_wait_for_their_turn(vhost: Vhost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past_module, "TURN_LIMIT", 0.05)
    await vhost.provision()
    async with recording(vhost) as record:
        await record.jobs([event(n) for n in range(1, 31)])
        async with reading(vhost, Ring(1, 10**6)) as past:
            held = past._readings
            for _ in range(past_module.READINGS):
                await held.acquire()
            page = Page("alice", Replay())
            assert not await past.fill(page, None)
            assert page.reply(end=False).events == ()
            held.release()
            assert (await pages(past, limit=1000))[0] == list(range(1, 31))


async def test_a_place_that_another_logsink_has_seen_first_is_waited_for(vhost: Vhost) -> None:
    await vhost.provision()
    async with recording(vhost) as record, reading(vhost, ring := Ring(100, 10**6)) as past:
        await record.job(event(1))
        assert (await pages(past, limit=10))[0] == [1]
        assert ring.newest is not None
        soon = Page("alice", Replay(after=ring.newest + 3))
        async with asyncio.TaskGroup() as group:
            filled = group.create_task(past.fill(soon, None))
            await asyncio.sleep(0)  # it waits
            assert not filled.done()
            await record.jobs([event(n) for n in range(2, 8)])
        assert filled.result()
        never = Page("alice", Replay(after=10_000))
        with pytest.raises(PastTheEndError):
            await past.fill(never, None)
