"""When something a service needs is away (broker, database): wait with growing delays, say for whom, come back."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, ClassVar

import structlog

from leveret_runtime.health import HEALTH
from leveret_runtime.waits import in_own_task

log = structlog.get_logger(__name__)

#: Seconds: the first delay, and the longest.
FIRST_DELAY = 0.2
LONGEST_DELAY = 15.0
#: A session that lasted this long was a good one: the next delay starts small again.
GOOD_SESSION = 30.0


class Away(Exception):
    """Something this process needs can't be reached now. The text says what."""

    #: In one word, for the metrics.
    WHAT: ClassVar[str] = "other"


def told(what: str, error: BaseException) -> str:
    """Say in one line that `what` is away, and how it showed."""
    return f"{what}: {str(error) or type(error).__name__}"


class BrokerAway(Away):
    """RabbitMQ: no connection, or it closed the connection or channel."""

    WHAT = "broker"


class DatabaseAway(Away):
    """PostgreSQL: no connection, or it was lost."""

    WHAT = "database"


async def keep_going(
    session: Callable[[], Coroutine[Any, Any, None]], stop: asyncio.Event, *, longest: float = LONGEST_DELAY
) -> None:
    """Run `session` again and again until it returns or `stop` is set, waiting after each `Away`.

    Waits grow up to `longest` seconds: a session that others wait for must be back before they give it up. Any other
    exception is a fault of ours and propagates (systemd restarts the service).
    """
    delays = backoff(longest)
    loop = asyncio.get_running_loop()
    with HEALTH.part() as part:
        while not stop.is_set():
            started = loop.time()
            part.begins()
            try:
                await in_own_task(session())
                return
            except Away as error:
                away = error
            except BaseExceptionGroup as group:
                gone, faults = group.split(Away)
                if faults is not None or gone is None:
                    raise
                away = _first(gone)
            HEALTH.away(part, away.WHAT, str(away))
            if loop.time() - started > GOOD_SESSION:
                delays = backoff(longest)
            delay = next(delays)
            log.warning("waiting", waits_for=str(away), seconds=round(delay, 1))
            try:
                async with asyncio.timeout(delay):
                    await stop.wait()
            except TimeoutError:
                continue


def _first(group: BaseExceptionGroup[Away]) -> Away:
    found: Away | BaseExceptionGroup[Away] = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


def backoff(longest: float = LONGEST_DELAY) -> Iterator[float]:
    """Give delays in seconds that double up to `longest`, each jittered down to as little as half."""
    delay = min(FIRST_DELAY, longest)
    while True:
        yield delay * random.uniform(0.5, 1.0)
        delay = min(delay * 2, longest)
