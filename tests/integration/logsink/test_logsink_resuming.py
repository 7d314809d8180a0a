"""The resuming subscriber against a real logsink: doorbell, repeats, crashes of the service, lost connections."""

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from leveret_client import (
    Client,
    ClientError,
    CommandRefused,
    Cursor,
    CursorFile,
    CursorMemory,
    CursorUnusable,
    NoAnswer,
    NotAllowed,
    NotReached,
    Subscription,
    Wanted,
    resuming,
)
from leveret_client.resuming import Arrival, ResumingSubscriber
from leveret_proto import keys, topology
from leveret_proto.envelope import pack
from leveret_proto.messages import JobEvent, Visibility
from leveret_runtime.broker import Publisher, connection
from tests.integration.logsink.stage import LIMIT, Stage
from tests.integration.logsink.test_logsink_replay import event
from tests.support.proxy import proxy_to

#: The package's attribute of this name is the function.
MODULE = importlib.import_module("leveret_client.resuming")
#: Longer than any test: only the bell can have been what was heard.
NEVER = 600.0


@pytest.fixture(autouse=True)
def slow_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "POLL", NEVER)


@pytest.fixture
async def publisher(stage: Stage) -> AsyncIterator["Told"]:
    async with connection(SecretStr(stage.vhost.url("dispatcher")), "test") as on:
        yield Told(await Publisher.open(on))


class Told:
    """Tells events as the dispatcher does: on the record, then to the public."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def event(self, told: JobEvent, *, bell: bool = True) -> None:
        key = keys.job_event(told.facts.visibility, told.facts.owner, told.facts.job, told.status)
        await self._publisher.send(topology.RECORD, key, pack(told), app="dispatcher")
        if bell:
            await self._publisher.send(topology.EVENTS, key, pack(told), app="dispatcher", mandatory=False)


@asynccontextmanager
async def subscribed(
    stage: Stage, store: Any = None, wanted: Wanted | None = None, owner: str = "alice", **more: Any
) -> AsyncIterator[ResumingSubscriber]:
    async with (
        asyncio.timeout(LIMIT * 3),
        resuming(
            lambda: Client(stage.vhost.url("alice"), owner, limit=LIMIT),
            CursorMemory() if store is None else store,
            wanted or Wanted(),
            **more,
        ) as arrivals,
    ):
        yield arrivals


async def heard(arrivals: ResumingSubscriber, count: int) -> list[Arrival]:
    return [await anext(arrivals) for _ in range(count)]


def numbers(arrivals: list[Arrival]) -> list[tuple[int, int]]:
    return [(told.event.facts.job, told.event.seq) for told in arrivals if isinstance(told.event, JobEvent)]


async def test_the_past_then_what_happens_each_once_and_by_the_bell(stage: Stage, publisher: Told) -> None:
    await stage.logsink()
    for seq in (1, 2):
        await publisher.event(event(1, seq))
    async with subscribed(stage) as arrivals:
        assert numbers(await heard(arrivals, 2)) == [(1, 1), (1, 2)]
        for n in range(3, 23):
            await publisher.event(event(1, n))
            await publisher.event(event(1, n - 1))  # a service that crashed says it again
            await publisher.event(event(2, n - 2, owner="bob"))
            assert numbers(await heard(arrivals, 1)) == [(1, n)]


async def test_an_event_whose_bell_was_not_heard_comes_with_the_next_or_with_the_poll(
    stage: Stage, publisher: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.logsink()
    async with subscribed(stage) as arrivals:
        await publisher.event(event(1, 1))
        await heard(arrivals, 1)
        await publisher.event(event(1, 2), bell=False)
        await publisher.event(event(1, 3))
        assert numbers(await heard(arrivals, 2)) == [(1, 2), (1, 3)]
    monkeypatch.setattr(MODULE, "POLL", 0.2)
    async with subscribed(stage) as arrivals:
        await heard(arrivals, 3)
        await publisher.event(event(1, 4), bell=False)
        assert numbers(await heard(arrivals, 1)) == [(1, 4)]


async def test_what_was_committed_never_comes_again_and_what_was_not_does(
    stage: Stage, publisher: Told, tmp_path: Path
) -> None:
    await stage.logsink()
    for seq in range(1, 11):
        await publisher.event(event(1, seq))
    told: list[tuple[int, int]] = []
    for _ in range(5):
        async with subscribed(stage, CursorFile(tmp_path / "c")) as arrivals:
            first, second, third = await heard(arrivals, 3)
            told += numbers([first, second])
            await second.commit()
            await first.commit()  # late: what is safe already stays safe
            assert numbers([third])[0] not in told
        if len(told) == 8:
            break
    assert told == [(1, n) for n in range(1, 9)]
    await publisher.event(event(1, 8), bell=False)  # a repeat, told apart by what the file remembers
    async with subscribed(stage, CursorFile(tmp_path / "c"), follow=False) as arrivals:
        assert numbers([arrival async for arrival in arrivals]) == [(1, 9), (1, 10)]


async def test_a_logsink_that_is_killed_and_connections_that_are_cut_cost_nothing(
    stage: Stage, publisher: Told
) -> None:
    sink = await stage.logsink()
    away: list[str] = []
    url = stage.vhost.url("alice")
    async with (
        asyncio.timeout(LIMIT * 3),
        proxy_to(url) as proxy,
        resuming(
            lambda: Client(proxy.url(url), "alice", limit=LIMIT),
            CursorMemory(),
            on_away=lambda error, _: away.append(str(error)),
        ) as arrivals,
    ):
        for n in range(1, 13):
            if n == 4:
                await sink.kill()
                sink = await stage.logsink()
            if n in (6, 7, 10):
                assert proxy.cut() == 1
            await publisher.event(event(1, n))
            assert numbers(await heard(arrivals, 1)) == [(1, n)]
    assert len(away) >= 3


async def test_a_broker_that_stalls_is_waited_for(
    stage: Stage, publisher: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("calls", "subscription"):
        monkeypatch.setattr(f"leveret_client.{module}.CONNECT_LIMIT", 0.3)
    await stage.logsink()
    away: list[ClientError] = []
    url = stage.vhost.url("alice")

    class Stalled(Client):
        async def subscribe(self) -> Subscription:
            if away:
                return await super().subscribe()
            with proxy.silent():
                return await super().subscribe()

    async with (
        asyncio.timeout(LIMIT * 3),
        proxy_to(url) as proxy,
        resuming(
            lambda: Stalled(proxy.url(url), "alice", limit=LIMIT),
            CursorMemory(),
            on_away=lambda error, _: away.append(error),
        ) as arrivals,
    ):
        await publisher.event(event(1, 1))
        assert numbers(await heard(arrivals, 1)) == [(1, 1)]
    assert isinstance(away[0], NotReached)


async def test_a_cursor_moves_past_what_is_others_unless_something_is_not_committed(
    stage: Stage, publisher: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(MODULE, "POLL", 0.05)
    await stage.logsink()
    store = CursorMemory()
    async with subscribed(stage, store) as arrivals:
        await publisher.event(event(1, 1))
        (mine,) = await heard(arrivals, 1)
        for n in range(1, 5):
            await publisher.event(event(2, n, owner="bob"))
        await publisher.event(event(1, 2))
        (second,) = await heard(arrivals, 1)
        kept = store.load()
        assert kept is None or kept.offset is None or kept.offset < mine.cursor.offset  # type: ignore[operator]
        await second.commit()
        assert store.load() == second.cursor
        await publisher.event(event(2, 5, owner="bob"))
        while (store.load() or Cursor()).offset == second.cursor.offset:
            await asyncio.sleep(0.01)
        assert (store.load() or Cursor()).has(second.event)


async def test_where_a_new_subscriber_begins(stage: Stage, publisher: Told) -> None:
    await stage.logsink()
    now = datetime.now(UTC)
    for seq in range(1, 6):
        await publisher.event(event(1, seq, at=now + timedelta(seconds=seq)))
    await publisher.event(event(2, 1, at=now + timedelta(seconds=9), owner="bob", seen=Visibility.PUBLIC))
    since = now + timedelta(seconds=4)
    store = CursorMemory()
    async with subscribed(stage, store, Wanted(since=since), follow=False) as arrivals:
        (first,) = await heard(arrivals, 1)
        await first.commit()
        rest = [arrival async for arrival in arrivals]
    assert numbers([first, *rest]) == [(1, 4), (1, 5)]
    async with subscribed(stage, None, Wanted(since=since, public=True, job=2)) as arrivals:
        assert numbers(await heard(arrivals, 1)) == [(2, 1)]
        await publisher.event(event(1, 6, at=now))
        # what is told late is told all the same, once the beginning was found
        await publisher.event(event(2, 2, at=now, owner="bob", seen=Visibility.PUBLIC))
        assert numbers(await heard(arrivals, 1)) == [(2, 2)]


async def test_what_would_not_get_better_ends_it(stage: Stage, tmp_path: Path) -> None:
    await stage.logsink()
    with pytest.raises(NotAllowed):
        async with subscribed(stage, owner="bob") as arrivals:
            await anext(arrivals)
    with pytest.raises(CommandRefused, match="begin anew, from a time"):
        async with subscribed(stage, CursorMemory(Cursor(offset=10_000))) as arrivals:
            await anext(arrivals)
    (tmp_path / "c").write_text("?")
    with pytest.raises(CursorUnusable):
        async with subscribed(stage, CursorFile(tmp_path / "c")) as arrivals:
            await anext(arrivals)
    with pytest.raises(ZeroDivisionError):
        async with subscribed(stage) as arrivals:
            raise ZeroDivisionError


async def test_without_following_what_is_away_is_told_at_once(stage: Stage) -> None:
    with pytest.raises(NotReached):
        async with resuming(lambda: Client("amqp://a:b@127.0.0.1:1/x", "a"), CursorMemory(), follow=False) as arrivals:
            await anext(arrivals)
    with pytest.raises(NoAnswer):  # no logsink runs
        async with resuming(
            lambda: Client(stage.vhost.url("alice"), "alice", limit=0.2), CursorMemory(), follow=False
        ) as arrivals:
            await anext(arrivals)
