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
#: Seconds after which a log that brings nothing new is forgotten: another logsink may have told its end.
FORGET = 60.0

#: Publishes a piece without bytes on the given publisher; raises Unroutable where nobody is bound.
Probe = Callable[[Publisher], Awaitable[None]]


@dataclass(slots=True)
class _Known:
    heard: bool = True
    probing: bool = False
    #: What is to be sent when the probe that is under way is over: there was news meanwhile.
    wanted: Probe | None = None
    #: When a log that is heard is probed again, by the event loop's clock; seconds.
    until: float = 0.0


class Listeners:
    """What is known of the logs that are open. One instance a connection."""

    def __init__(self, publisher: Publisher, tasks: asyncio.TaskGroup) -> None:
        """`publisher`: with confirms, for probes alone. `tasks`: where they run."""
        self._publisher = publisher
        self._tasks = tasks
        self._known: dict[int, _Known] = {}
        self._swept = 0.0

    def heard(self, stream: int) -> bool:
        """Say whether to publish what is new of `stream` (its row)."""
        known = self._known.get(stream)
        return known is None or known.heard

    def look(self, stream: int, probe: Probe) -> None:
        """Probe `stream` where it is time to; after its bytes, which a probe before them would make look missed."""
        now = asyncio.get_running_loop().time()
        self._sweep(now)
        known = self._known.setdefault(stream, _Known())
        if known.probing:
            known.wanted = probe
        elif not known.heard or now >= known.until:
            known.probing = True
            self._tasks.create_task(self._ask(known, probe))

    def ended(self, stream: int) -> None:
        """Nothing more comes of it."""
        self._known.pop(stream, None)

    def _sweep(self, now: float) -> None:
        if now - self._swept >= FORGET:
            self._swept = now
            self._known = {id_: one for id_, one in self._known.items() if one.probing or now < one.until + FORGET}

    async def _ask(self, known: _Known, probe: Probe) -> None:
        sent: Probe | None = probe
        while sent is not None:
            known.heard = await self._is_heard(sent)
            sent, known.wanted = known.wanted, None
        known.until = asyncio.get_running_loop().time() + INTERVAL
        known.probing = False

    async def _is_heard(self, probe: Probe) -> bool:
        try:
            async with asyncio.timeout(LIMIT):
                await probe(self._publisher)
        except Unroutable:
            return False
        except (Refused, BrokerAway, TimeoutError):
            pass  # a follower's queue may refuse it, or never confirm it: somebody is there
        return True
