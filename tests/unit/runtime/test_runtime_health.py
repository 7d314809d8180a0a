"""Health: a process is ready when all that once served serves, and says what it waits for."""

import asyncio

import pytest

from leveret_runtime import away
from leveret_runtime.away import BrokerAway, DatabaseAway, keep_going
from leveret_runtime.health import Health


@pytest.fixture
def health(monkeypatch: pytest.MonkeyPatch) -> Health:
    """The health of a process that has just begun."""
    fresh = Health()
    monkeypatch.setattr(away, "HEALTH", fresh)
    monkeypatch.setattr(away, "FIRST_DELAY", 0.001)
    return fresh


def test_a_process_is_not_ready_before_it_says_so(health: Health) -> None:
    with health.part():
        assert (health.ready, health.told) == (False, "starting")
        health.serving(lambda: "taking submissions")
    assert (health.ready, health.told) == (True, "taking submissions")


def test_what_served_is_waited_for_until_it_serves_again(health: Health) -> None:
    with health.part() as part:
        health.serving(lambda: "2 slots")
        health.away(part, "broker", "RabbitMQ: gone")
        assert (health.ready, health.told) == (False, "waiting for RabbitMQ: gone")
        part.begins()  # tried again, not there yet
        assert not health.ready
        health.serving(lambda: "2 slots")
        assert health.ready


def test_what_never_says_that_it_serves_is_waited_for_until_its_next_try(health: Health) -> None:
    with health.part():
        health.serving(lambda: "storing")
        with health.part() as watcher:
            health.away(watcher, "storage", "storage: gone")
            assert not health.ready
            watcher.begins()
            assert health.ready


def test_a_part_that_is_lost_with_the_one_around_it_is_waited_for_through_that(health: Health) -> None:
    """The database holds the broker's session: after its loss nothing is ready before that session serves again."""
    with health.part() as outer:
        with health.part():
            health.serving(lambda: "leading")
        health.away(outer, "database", "PostgreSQL: gone")
        outer.begins()
        assert not health.ready
        with health.part():
            assert not health.ready
            health.serving(lambda: "leading")
            assert health.ready


def test_everything_that_is_waited_for_is_told_once(health: Health) -> None:
    with health.part() as one, health.part() as two, health.part() as three:
        health.away(one, "broker", "RabbitMQ: gone")
        health.away(two, "broker", "RabbitMQ: gone")
        health.away(three, "database", "PostgreSQL: gone")
        assert health.told == "waiting for PostgreSQL: gone; RabbitMQ: gone"
        assert health.outages == {"broker": 2, "database": 1}
    assert health.waits_for == ()


def test_who_stops_is_not_ready(health: Health) -> None:
    health.serving(lambda: "leading")
    health.stopping()
    assert (health.ready, health.told) == (False, "stopping; leading")


def test_how_things_stand_is_asked_anew_each_time_and_is_one_line(health: Health) -> None:
    jobs = [1]
    health.serving(lambda: f"{len(jobs)} jobs")
    jobs.append(2)
    assert (health.told, health.moving) == ("2 jobs", False)
    with health.part() as part:
        health.away(part, "broker", "a server:\nMAINPID=1\n")
        assert health.told == "waiting for a server: MAINPID=1"


async def test_a_loop_that_keeps_going_tells_its_outages(health: Health) -> None:
    outcomes: list[Exception | None] = [
        BrokerAway("RabbitMQ: refused"), None, ExceptionGroup("", [DatabaseAway("PostgreSQL: gone")]), None,
    ]  # fmt: skip
    seen: list[bool] = []

    async def session() -> None:
        seen.append(health.ready)
        outcome = outcomes.pop(0)
        if outcome is None:
            async with asyncio.TaskGroup() as group:  # what serves may be a task of the session
                group.create_task(_serve(health))
            seen.append(health.ready)
            if outcomes:
                raise BrokerAway("RabbitMQ: connection lost")
        else:
            raise outcome

    async with asyncio.timeout(10):
        await keep_going(session, asyncio.Event())
    assert seen == [False, False, True, False, False, True]
    assert health.outages == {"broker": 2, "database": 1}
    assert health.ready


async def _serve(health: Health) -> None:
    health.serving(lambda: "serving")
