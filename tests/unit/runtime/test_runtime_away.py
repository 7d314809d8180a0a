import asyncio
from itertools import islice

import pytest

from leveret_runtime import away
from leveret_runtime.away import Away, BrokerAway, DatabaseAway, backoff, keep_going, told


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(away, "FIRST_DELAY", 0.001)


class Session:
    """Raises one after another of `ends`, then returns."""

    def __init__(self, *ends: BaseException) -> None:
        self._ends = list(ends)
        self.runs = 0

    async def __call__(self) -> None:
        self.runs += 1
        if self._ends:
            raise self._ends.pop(0)


async def test_a_session_that_ends_well_is_not_repeated() -> None:
    session = Session()
    await keep_going(session, asyncio.Event())
    assert session.runs == 1


async def test_what_is_away_is_waited_for() -> None:
    group = BaseExceptionGroup("", [BrokerAway("a"), ExceptionGroup("", [DatabaseAway("b")])])
    session = Session(BrokerAway("RabbitMQ: gone"), DatabaseAway("PostgreSQL: gone"), group)
    async with asyncio.timeout(5):
        await keep_going(session, asyncio.Event())
    assert session.runs == 4


async def test_a_fault_of_ours_is_not_repeated() -> None:
    session = Session(ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        await keep_going(session, asyncio.Event())
    assert session.runs == 1


async def test_a_fault_beside_what_is_away_is_not_hidden() -> None:
    session = Session(ExceptionGroup("", [BrokerAway("a"), ExceptionGroup("", [ValueError("a bug")])]))
    with pytest.raises(ExceptionGroup) as raised:
        await keep_going(session, asyncio.Event())
    assert raised.group_contains(ValueError, match="a bug")
    assert session.runs == 1


async def test_a_stop_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(away, "FIRST_DELAY", 60)
    stop = asyncio.Event()

    async def session() -> None:
        asyncio.get_running_loop().call_soon(stop.set)
        raise BrokerAway("gone")

    async with asyncio.timeout(5):
        await keep_going(session, stop)


async def test_nothing_runs_after_a_stop() -> None:
    session, stop = Session(), asyncio.Event()
    stop.set()
    await keep_going(session, stop)
    assert session.runs == 0


async def test_cancelling_ends_it() -> None:
    async def session() -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await keep_going(session, asyncio.Event())


def test_delays_double_up_to_a_bound_and_are_jittered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(away, "FIRST_DELAY", 0.2)
    delays = list(islice(backoff(), 40))
    full = [min(0.2 * 2**n, away.LONGEST_DELAY) for n in range(40)]
    assert all(most / 2 <= delay <= most for delay, most in zip(delays, full, strict=True))
    assert len(set(delays[-20:])) > 1
    assert max(islice(backoff(longest=2.0), 40)) <= 2.0


async def test_a_good_session_makes_the_next_delay_small_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr(away, "backoff", lambda longest: made.append(longest) or iter([0.0] * 9))
    monkeypatch.setattr(away, "GOOD_SESSION", -1.0)
    await keep_going(Session(BrokerAway("a"), BrokerAway("b")), asyncio.Event())
    assert len(made) == 3
    monkeypatch.setattr(away, "GOOD_SESSION", 60.0)
    await keep_going(Session(BrokerAway("a"), BrokerAway("b")), asyncio.Event())
    assert len(made) == 4


def test_an_error_without_text_is_told_by_its_name() -> None:
    assert told("RabbitMQ", TimeoutError()) == "RabbitMQ: TimeoutError"
    assert told("RabbitMQ", OSError("refused")) == "RabbitMQ: refused"
    assert issubclass(BrokerAway, Away)


async def test_a_failed_session_leaves_no_cancel_request_behind() -> None:
    # Before Python 3.11.3 such a one turns the next time limit that passes into a cancellation of the service.
    async def away() -> None:
        await asyncio.sleep(0)
        raise Away("gone")

    sessions = 0

    async def session() -> None:
        nonlocal sessions
        sessions += 1
        if sessions == 1:
            async with asyncio.TaskGroup() as group:
                group.create_task(away())

    await keep_going(session, asyncio.Event())
    task = asyncio.current_task()
    assert sessions == 2
    assert task is not None
    assert task.cancelling() == 0
