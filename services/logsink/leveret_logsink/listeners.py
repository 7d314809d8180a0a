"""Which logs anybody follows live: the others' bytes need not go to the broker, which would drop them.

A broker tells by itself only of a message that it could not deliver. So each log is probed now and then by a piece
without bytes, whose return tells that nobody listens. Nothing ever waits for that: what is not known counts as
listened to. A follower who joins an unheard log gets the next probe, which says how far the log reaches, and reads the
rest from the history.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from leveret_runtime.away import BrokerAway
from leveret_runtime.broker import Publisher, Refused, Unroutable

#: Seconds until a log that somebody listened to is probed again.
INTERVAL = 5.0
#: Seconds that a probe may take. A follower's queue may refuse it, or never confirm it: then somebody is there.
LIMIT = 2.0

#: Publishes a piece without bytes on the given publisher; raises Unroutable where nobody is bound.
Probe = Callable[[Publisher], Awaitable[None]]


@dataclass(slots=True)
class _Known:
    heard: bool = True
    probing: bool = False
    #: By the event loop's clock; seconds.
    until: float = 0.0


class Listeners:
    """What is known of the logs that are open. One instance a connection."""

    def __init__(self, publisher: Publisher, tasks: asyncio.TaskGroup) -> None:
        """`publisher`: with confirms, for probes alone. `tasks`: where they run."""
        self._publisher = publisher
        self._tasks = tasks
        self._known: dict[int, _Known] = {}

    def heard(self, stream: int) -> bool:
        """Say whether to publish what is new of `stream` (its row)."""
        return self._known.setdefault(stream, _Known()).heard

    def look(self, stream: int, probe: Probe) -> None:
        """Probe `stream` where it is time to; after its bytes, which a probe before them would make look missed."""
        known = self._known.setdefault(stream, _Known())
        now = asyncio.get_running_loop().time()
        if not known.probing and (not known.heard or now >= known.until):
            known.probing = True
            self._tasks.create_task(self._ask(known, probe))

    def ended(self, stream: int) -> None:
        """Nothing more comes of it."""
        self._known.pop(stream, None)

    async def _ask(self, known: _Known, probe: Probe) -> None:
        try:
            async with asyncio.timeout(LIMIT):
                await probe(self._publisher)
        except Unroutable:
            known.heard = False
        except (Refused, BrokerAway, TimeoutError):
            known.heard = True
        else:
            known.heard = True
        known.until = asyncio.get_running_loop().time() + INTERVAL
        known.probing = False
