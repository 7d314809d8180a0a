"""Claims on deliveries: taken once, taken again when a try died, and late results that may no longer count."""

from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from leveret_notifier import store
from leveret_notifier.outcome import Outcome
from leveret_runtime.db import Database
from tests.integration.notifier.conftest import ended_job
from tests.support import databases

HOOK = {"action": "webhook", "url": "https://example.org/"}
DELIVERED = Outcome("delivered", "HTTP 200")
RETRYING = Outcome("retrying", "HTTP 503", "\0 said")


@pytest.fixture
async def opened(database: databases.Database) -> AsyncIterator[Database]:
    async with Database.open(SecretStr(database.dsn_for("notifier")), "notify") as made:
        await made.migrate("leveret_notifier")
        async with made.transaction() as on:
            await store.add(on, ended_job(7, HOOK), [0])
        yield made


async def recorded(opened: Database, delivery: store.Delivery, outcome: Outcome, delay: float = 0.0) -> bool:
    async with opened.transaction() as on:
        return await store.record(on, delivery, outcome, delay)


async def test_a_claim_is_taken_once_until_its_try_counts_as_dead(opened: Database) -> None:
    (first,) = await store.claim(opened, 5, 60)
    assert await store.claim(opened, 5, 60) == []
    assert await recorded(opened, first, RETRYING)
    (second,) = await store.claim(opened, 5, 0)
    (third,) = await store.claim(opened, 5, 60)
    assert [first.tries, second.tries, third.tries] == [1, 2, 3]
    assert first.id == second.id == third.id


async def test_a_try_that_counted_as_dead_cannot_put_off_its_successor(opened: Database) -> None:
    (dead,) = await store.claim(opened, 1, 0)
    (alive,) = await store.claim(opened, 1, 60)
    assert not await recorded(opened, dead, RETRYING)
    assert await recorded(opened, alive, DELIVERED)


async def test_a_success_counts_however_late_and_only_once(opened: Database) -> None:
    (dead,) = await store.claim(opened, 1, 0)
    (alive,) = await store.claim(opened, 1, 60)
    assert await recorded(opened, dead, DELIVERED)
    assert not await recorded(opened, alive, DELIVERED)
    assert await store.seconds_to_next(opened) is None


async def test_the_next_due_time_is_told(opened: Database) -> None:
    (claimed,) = await store.claim(opened, 1, 60)
    await recorded(opened, claimed, RETRYING, 100)
    seconds = await store.seconds_to_next(opened)
    assert seconds is not None and 60 < seconds <= 100


async def test_a_job_told_again_adds_nothing(opened: Database) -> None:
    async with opened.transaction() as on:
        await store.add(on, ended_job(7, HOOK, HOOK), [0, 1])
    assert len(await store.claim(opened, 5, 60)) == 1


async def test_recipients_left_are_remembered(opened: Database) -> None:
    (first,) = await store.claim(opened, 1, 60)
    assert await recorded(opened, first, Outcome("retrying", "", reached=2, remaining=("a@b.example",)))
    (second,) = await store.claim(opened, 1, 60)
    assert (second.remaining, second.reached) == (("a@b.example",), 2)


async def test_what_waits_and_how_long_it_has_been_due_is_counted(opened: Database) -> None:
    async with opened.connection() as on:
        due = await store.waiting(on)
        assert (due.number, due.overdue > 0) == (1, True)
        (claimed,) = await store.claim(opened, 1, 60)
        assert await store.waiting(on) == (1, 0)  # its try runs
        assert await recorded(opened, claimed, DELIVERED)
        assert await store.waiting(on) == (0, 0)
