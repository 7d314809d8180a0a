"""The replay stream as logsink reads it: the newest records from memory, older ones from the broker.

Over AMQP 0-9-1 a stream does not say where it ends: its message count is always 0, and a consumer past the end, or of
an empty stream, hears nothing. So logsink leaves marks in it, records of its own: who has seen a mark has seen all
before it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice

from aio_pika.abc import AbstractConnection, AbstractIncomingMessage

from leveret_logsink.replay_page import Page
from leveret_logsink.ring import Record, Ring
from leveret_proto.envelope import Parcel
from leveret_proto.topology import MIB, REPLAY
from leveret_runtime.away import BrokerAway, told
from leveret_runtime.broker import Consumer, Publisher, Refused, Unroutable, settle
from leveret_runtime.waits import pause

#: What is kept in memory.
RING_RECORDS = 20_000
RING_BYTES = 32 * MIB
#: The `type` of a mark. It has no body, and no reader is given it.
MARK = "replay.mark.v1"
#: Records acked together, and the most that the broker sends ahead.
BATCH = 100
PREFETCH = 400
#: Readings of the broker's stream at once, in one logsink.
READINGS = 2
#: Seconds: for reading towards one page, for a reading's turn, for a mark to come back, until a mark is too old.
PAGE_LIMIT = 1.0
TURN_LIMIT = 5.0
MARK_LIMIT = 5.0
MARK_AGE = 30.0
#: Seconds after the last request for which the newest records are still kept in memory. Longer than any page takes.
ASKED_FOR = 60.0
#: Seconds for which this service, lagging behind the stream, may seem not to have what another one has given already.
LAG_LIMIT = 0.5
#: How far the clocks of database, broker and logsink may be apart.
CLOCKS = timedelta(minutes=2)
#: No record is that old, and not every older time is one to a broker.
LONG_AGO = timedelta(days=365)
#: The place before a stream's first record.
_BEFORE_ALL = -1


class PastTheEndError(Exception):
    """A place that the stream has not got: it was given by a stream that is no more. The text says so."""


class Past:
    """The stream for the length of one connection. `follow` must run while anything is asked."""

    def __init__(self, on: AbstractConnection, publisher: Publisher, ring: Ring | None = None) -> None:
        self._on = on
        self._publisher = publisher
        self._ring = ring or Ring(RING_RECORDS, RING_BYTES)
        self._grown = asyncio.Condition()
        self._readings = asyncio.Semaphore(READINGS)
        self._marking = asyncio.Lock()
        self._mark: str | None = None
        self._marked_at: float | None = None
        self._asked = asyncio.Event()

    async def follow(self, stop: asyncio.Event) -> None:
        """Keep the newest records in memory, as long as somebody asks, until `stop` is set. Raises BrokerAway."""
        while not stop.is_set():
            await pause(ASKED_FOR, self._asked, stop)
            if not self._asked.is_set():
                continue
            over = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._until_unasked(over, stop))
                await self._follow(over)
            self._ring.clear()
            self._mark = self._marked_at = None

    async def _until_unasked(self, over: asyncio.Event, stop: asyncio.Event) -> None:
        while self._asked.is_set() and not stop.is_set():
            self._asked.clear()
            await pause(ASKED_FOR, stop)
        over.set()

    async def _follow(self, over: asyncio.Event) -> None:
        async with self._reading("last", over) as consumer:
            await self._take(consumer)

    async def _take(self, consumer: Consumer) -> None:
        # an empty stream would leave us without knowing that it is
        await self._publish_mark()
        async for message in consumer:
            batch = [message, *consumer.ready(BATCH - 1)]
            for record in map(_record, batch):
                self._ring.add(record)
                if record.message_id == self._mark:
                    self._marked_at = asyncio.get_running_loop().time()
            async with self._grown:
                self._grown.notify_all()
            await settle(batch[-1], multiple=True)

    async def fill(self, page: Page, since: datetime | None) -> bool:
        """Offer to `page` what the stream has past `page.place`; where that is None, all, or all from `since` on.

        Returns when the page is full, the stream has ended or PAGE_LIMIT is over; true: it has ended.

        Raises:
            PastTheEndError: the stream has never got as far as `page.place`.
            BrokerAway: the stream can't be read.
        """
        self._asked.set()
        if not await self._until(lambda: self._ring.newest is not None, MARK_LIMIT):
            return False
        if page.place is not None and not await self._reaches(page.place):
            return False
        after = _BEFORE_ALL if page.place is None else page.place
        if self._ring.covers(after):
            return await self._fill_from_memory(page, after)
        try:
            async with asyncio.timeout(TURN_LIMIT):
                await self._readings.acquire()
        except TimeoutError:
            return False
        try:
            joins = await self._fill_from_broker(page, since)
        finally:
            self._readings.release()
        return joins is not None and await self._fill_from_memory(page, joins)

    async def _fill_from_memory(self, page: Page, after: int) -> bool:
        while self._ring.covers(after):
            batch = list(islice(self._ring.after(after), BATCH))
            if not batch:
                return True
            if not all(page.offer(record) for record in batch):
                return False
            after = batch[-1].offset
            await asyncio.sleep(0)
        return False  # dropped meanwhile: the next page has it from the broker

    async def _fill_from_broker(self, page: Page, since: datetime | None) -> int | None:
        """Offer records until those in memory join; give the place after which they do. None: it is not so far yet."""
        loop = asyncio.get_running_loop()
        async with self._reading(await self._start(page, since)) as consumer:
            began = loop.time()
            first = True
            try:
                async with asyncio.timeout(PAGE_LIMIT):
                    async for message in consumer:
                        batch = [message, *consumer.ready(BATCH - 1)]
                        for record in map(_record, batch):
                            if first:
                                page.begin(record.offset)
                                first = False
                            if self._ring.covers(record.offset - 1):
                                return record.offset - 1
                            if not page.offer(record):
                                return None
                        await settle(batch[-1], multiple=True)  # let the broker send more
                        # what is stored meanwhile has half of the time at least
                        await asyncio.sleep(loop.time() - began)
                        began = loop.time()
            except TimeoutError:
                pass
        return None

    async def _start(self, page: Page, since: datetime | None) -> int | str | datetime:
        """Give the `x-stream-offset` to read from: at or before the first record that is wanted."""
        if page.place is not None:
            return page.place
        now = datetime.now(UTC)
        if since is None or since < now - LONG_AGO:
            return "first"
        # from a time that no record has reached the broker would send nothing, not even the mark
        await self._recent_mark()
        return min(since, now) - CLOCKS

    async def _reaches(self, place: int) -> bool:
        """Wait until the newest record is no older than `place`, which another logsink may have seen before us."""

        def reached() -> bool:
            return self._ring.newest is not None and self._ring.newest >= place

        if await self._until(reached, LAG_LIMIT):
            return True
        if not await self._new_mark() or reached():
            return reached()
        raise PastTheEndError(
            f"place {place} lies past the stream's end, {self._ring.newest}: the broker's data was replaced since; "
            "begin anew, from a time"
        )

    async def _recent_mark(self) -> None:
        """See that a mark of ours, MARK_AGE old at most, is in the stream."""
        if self._marked_at is None or asyncio.get_running_loop().time() - self._marked_at > MARK_AGE:
            await self._new_mark()

    async def _new_mark(self) -> bool:
        """Leave a mark and wait until it comes back; false where it does not within MARK_LIMIT."""
        async with self._marking:
            asked = asyncio.get_running_loop().time()
            await self._publish_mark()
            return await self._until(lambda: self._marked_at is not None and self._marked_at >= asked, MARK_LIMIT)

    async def _publish_mark(self) -> None:
        parcel = Parcel(b"", MARK)
        self._mark = parcel.message_id
        # straight into the stream: subscribers to the record are spared it
        try:
            await self._publisher.send("", REPLAY, parcel, app="logsink")
        except (Unroutable, Refused) as error:
            raise BrokerAway(told("the replay stream", error)) from error

    async def _until(self, holds: Callable[[], bool], limit: float) -> bool:
        """Wait until `holds`, `limit` seconds at most; give whether it does."""
        try:
            async with asyncio.timeout(limit), self._grown:
                await self._grown.wait_for(holds)
        except TimeoutError:
            return False
        return True

    @asynccontextmanager
    async def _reading(self, start: int | str | datetime, stop: asyncio.Event | None = None) -> AsyncIterator[Consumer]:
        consumer = await Consumer.open(
            self._on, REPLAY, prefetch=PREFETCH, stop=stop, arguments={"x-stream-offset": start}
        )  # fmt: skip
        try:
            yield consumer
        finally:
            await consumer.close()


def _record(message: AbstractIncomingMessage) -> Record:
    offset = message.headers["x-stream-offset"]
    assert isinstance(offset, int)  # the broker's own
    return Record(offset, message.routing_key or "", message.type, message.message_id, message.body)
