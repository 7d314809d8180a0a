"""The way out: publishing that outlives connections.

Builds go on while the broker is away. What they send waits here for the next connection and is repeated until the
broker has confirmed it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from leveret_proto.envelope import Parcel
from leveret_runtime.away import BrokerAway, backoff
from leveret_runtime.broker import Publisher, Refused, Unroutable

log = structlog.get_logger(__name__)


class Outlet:
    """A publisher that may be absent for a while."""

    def __init__(self, app: str) -> None:
        self._app = app
        self._publisher: Publisher | None = None
        self._connected = asyncio.Event()
        self._failed = asyncio.Event()
        self._failure: BrokerAway | None = None

    @asynccontextmanager
    async def over(self, publisher: Publisher) -> AsyncIterator[None]:
        """Send through `publisher` for the time of the block."""
        self._publisher = publisher
        self._failed.clear()
        self._connected.set()
        try:
            yield
        finally:
            self._drop()

    async def watch(self) -> None:
        """Raise BrokerAway when the publisher has failed: the broker may close its channel and leave the connection."""
        await self._failed.wait()
        assert self._failure is not None
        raise self._failure

    def _drop(self) -> None:
        self._connected.clear()
        self._publisher = None

    async def send(self, exchange: str, key: str, parcel: Parcel) -> None:
        """Publish `parcel` and return when it is confirmed, however long that takes. A repeat is the same message."""
        delays = backoff()
        while True:
            await self._connected.wait()
            publisher = self._publisher
            if publisher is None:  # went away between the wake-up and now
                continue
            try:
                await publisher.send(exchange, key, parcel, app=self._app)
                return
            except BrokerAway as away:
                if self._publisher is publisher:
                    self._drop()
                    self._failure = away
                    self._failed.set()
            except (Refused, Unroutable) as error:
                delay = next(delays)
                log.warning("not taken, will be repeated", reason=str(error), seconds=round(delay, 1))
                await asyncio.sleep(delay)
