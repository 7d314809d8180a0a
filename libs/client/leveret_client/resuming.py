"""A subscription that goes on where it stopped: no event is missed or repeated, whoever crashes meanwhile.

Events come from the replay stream alone, in its order. The live subscription is only a doorbell: it says that there is
something new to ask for. A bell that is not heard costs POLL seconds, never an event.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from leveret_client.client import Client
from leveret_client.cursor import Cursor, CursorStore
from leveret_client.errors import ClientError, NoAnswer, NotReached, plain
from leveret_client.replaying import events_of
from leveret_client.subscription import LogPiece, Subscription
from leveret_proto.messages import Event, NumberedEvent, ReplayReply, WorkerEvent
from leveret_runtime.away import backoff
from leveret_runtime.waits import in_own_task

#: Seconds after which is asked without a bell.
POLL = 5.0
#: Seconds to wait before asking again for an event that was heard of, but has not reached the stream's reader yet.
_LAGS = (0.01, 0.03, 0.1, 0.3, 1.0)
#: Seconds between saves of a cursor that moved past other people's events.
SAVE_EVERY = 10.0
#: Events read ahead of the subscriber.
AHEAD = 100

ClientMaker = Callable[[], Client]
T = TypeVar("T")


class Arrival:
    """An event that has come.

    Attributes:
        cursor: the one behind it.
        missed: events before this one are lost, because the stream keeps them no longer.
    """

    def __init__(self, subscriber: "ResumingSubscriber", event: Event, cursor: Cursor, *, missed: bool) -> None:
        self._subscriber = subscriber
        self.event = event
        self.cursor = cursor
        self.missed = missed

    async def commit(self) -> None:
        """Have the cursor saved: this event, and all before it, never come again."""
        await self._subscriber.commit(self.cursor)


@dataclass(frozen=True)
class Wanted:
    """What to subscribe to, besides all that happens to the owner's jobs.

    Attributes:
        since: where a subscriber without a cursor begins. None: with the oldest event that is kept.
        public: everybody's public jobs, too.
        workers: workers, too.
        job: of the events about jobs, only this one's.
    """

    since: datetime | None = None
    public: bool = False
    workers: bool = False
    job: int | None = None

    def concerns(self, event: Event) -> bool:
        """Whether `event`, of all that is bound, is wanted."""
        if self.job is None or isinstance(event, WorkerEvent):
            return True
        return isinstance(event, NumberedEvent) and event.facts.job == self.job


@asynccontextmanager
async def resuming(
    client: ClientMaker,
    store: CursorStore,
    wanted: Wanted = Wanted(),
    *,
    follow: bool = True,
    on_away: Callable[[ClientError, float], None] | None = None,
) -> AsyncIterator["ResumingSubscriber"]:
    """Subscribe, from the cursor in `store` on: `async with resuming(...) as arrivals: async for arrival in arrivals`.

    Handle each event, then `await arrival.commit()`. What was committed never comes again; what was handled but not
    committed comes again after a crash, before anything new. To handle each event exactly once, give a `store` of your
    own whose `save` keeps the cursor in one transaction with what was done.

    Args:
        client: makes a client, as `lambda: Client(url, owner)`: one for each connection.
        store: a CursorFile, or one of your own.
        follow: go on for ever, over lost connections. False: iteration ends when nothing newer is in the stream,
            and what is away raises NotReached or NoAnswer.
        on_away: told what is away, and the seconds until it is tried again.

    Iteration raises NotAllowed or CommandRefused where trying again would not help (CommandRefused also for a cursor
    that the broker's stream does not have), and what `store` raises ends the block. What the block raises itself comes
    out of it as it is.
    """
    subscriber = ResumingSubscriber(client, store, wanted, follow=follow, on_away=on_away)
    raised: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(subscriber._run())
            try:
                yield subscriber
            except asyncio.CancelledError:
                raise  # from outside, or by the group, as reading has failed
            except BaseException as error:
                raised = error
            reading.cancel()
    except BaseExceptionGroup as errors:
        if raised is None:
            raise plain(errors) from None
    if raised is not None:
        raise raised  # not in a handler, which would change its context


class ResumingSubscriber:
    """Iterate over its arrivals. Made by `resuming`."""

    def __init__(
        self,
        client: ClientMaker,
        store: CursorStore,
        wanted: Wanted,
        *,
        follow: bool,
        on_away: Callable[[ClientError, float], None] | None,
    ) -> None:
        self._client = client
        self._store = store
        self._saving = asyncio.Lock()
        self._wanted = wanted
        self._follow = follow
        self._on_away = on_away
        self._arrived: asyncio.Queue[Arrival | ClientError | None] = asyncio.Queue(AHEAD)
        self._cursor = Cursor()
        self._delays = backoff()
        # places: of the last event that was given, that was committed, that was saved
        self._given: int | None = None
        self._committed: int | None = None
        self._saved: int | None = None
        self._saved_at = 0.0
        #: Events were lost before the next one.
        self._missed = False

    def __aiter__(self) -> "ResumingSubscriber":
        return self

    async def __anext__(self) -> Arrival:
        arrived = await self._arrived.get()
        if isinstance(arrived, Arrival):
            return arrived
        self._arrived.put_nowait(arrived)  # whoever asks again is told again
        if arrived is None:
            raise StopAsyncIteration
        raise arrived

    async def commit(self, cursor: Cursor) -> None:
        """Save `cursor`, which came with an event."""
        await self._save(cursor)
        if self._committed is None or (cursor.offset or 0) > self._committed:
            self._committed = cursor.offset

    async def _run(self) -> None:
        """Read until the end (without `follow`), or for ever; then, or on an error, leave the news for the reader."""
        try:
            loaded = await _in_thread(self._store.load)
            self._cursor = loaded or Cursor(since=self._wanted.since)
            self._saved = self._cursor.offset
            await self._read_on()
            await self._arrived.put(None)
        except ClientError as error:
            await self._arrived.put(error)

    async def _read_on(self) -> None:
        while True:
            try:
                return await in_own_task(self._session())
            except (NotReached, NoAnswer) as away:
                if not self._follow:
                    raise
                delay = next(self._delays)
                if self._on_away is not None:
                    self._on_away(away, delay)
            await asyncio.sleep(delay)

    async def _session(self) -> None:
        """Read over one connection."""
        async with self._client() as client:
            bell = await self._bell(client) if self._follow else None
            while True:
                page = await self._ask(client)
                self._delays = backoff()
                await self._give(page)
                await self._save_progress()
                if not page.end:
                    continue
                if bell is None:
                    return
                await bell.wait(lambda event: self._wanted.concerns(event) and not self._cursor.has(event))

    async def _bell(self, client: Client) -> "_Doorbell":
        subscription = await client.subscribe()
        await subscription.bind_owner(client.owner)
        if self._wanted.public:
            await subscription.bind_public()
        if self._wanted.workers:
            await subscription.bind_workers()
        return _Doorbell(subscription)

    async def _ask(self, client: Client) -> ReplayReply:
        return await client.replay_page(
            after=self._cursor.offset,
            since=self._cursor.since,
            job=self._wanted.job,
            public=self._wanted.public,
            workers=self._wanted.workers,
        )

    async def _give(self, page: ReplayReply) -> None:
        """Hand on the events of a page. The cursor moves with each, so that a session cut short is gone on with."""
        self._missed = self._missed or page.truncated
        for offset, event in events_of(page):
            if self._cursor.has(event):
                continue
            cursor = self._cursor.past(offset, event)
            await self._arrived.put(Arrival(self, event, cursor, missed=self._missed))
            self._cursor, self._given, self._missed = cursor, offset, False
        self._cursor = self._cursor.moved(page.next, end=page.end)

    async def _save_progress(self) -> None:
        """Save a cursor that has moved past events of others, so that a later run need not pass them again.

        Not while the subscriber has yet to commit an event, or to be told of lost ones.
        """
        if self._given != self._committed or self._missed or self._cursor.offset == self._saved:
            return
        now = asyncio.get_running_loop().time()
        if self._saved is None or now - self._saved_at >= SAVE_EVERY:
            await self._save(self._cursor)

    async def _save(self, cursor: Cursor) -> None:
        async with self._saving:
            if self._saved is not None and (cursor.offset or 0) < self._saved:
                return  # an older one than is safe already
            await _in_thread(lambda: self._keep(cursor))
            self._saved_at = asyncio.get_running_loop().time()

    def _keep(self, cursor: Cursor) -> None:
        self._store.save(cursor)
        self._saved = cursor.offset  # also where nobody waits for it any more


async def _in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread and wait for its end, even when cancelled: it can't be stopped, and must not overlap."""
    done = asyncio.get_running_loop().run_in_executor(None, copy_context().run, work)
    cancelled: asyncio.CancelledError | None = None
    while not done.done():
        try:
            await asyncio.wait({done})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from done.exception()
    return done.result()


class _Doorbell:
    """Says when it is worth asking."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._heard: Event | None = None
        self._lags: Iterator[float] = iter(())

    async def wait(self, is_news: Callable[[Event], bool]) -> None:
        """Wait until the stream may have something new, POLL seconds at most."""
        # an event may reach us sooner than it reaches the service that we ask
        if self._heard is not None and is_news(self._heard):
            lag = next(self._lags, None)
            if lag is not None:
                await asyncio.sleep(lag)
                return
        self._heard = None
        try:
            async with asyncio.timeout(POLL):
                async for event in self._subscription:
                    if not isinstance(event, LogPiece) and is_news(event):
                        self._heard = event
                        self._lags = iter(_LAGS)
                        return
        except TimeoutError:
            return
