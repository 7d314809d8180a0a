"""A worker's session with the broker: its exclusive queue and bindings, beats and claims out, grants and orders in.

Two connections: control must not wait behind log chunks.
"""

import asyncio
from contextlib import AsyncExitStack

import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import AMQPError

from leveret_proto import keys
from leveret_proto.capability import Capabilities, offered_keys
from leveret_proto.envelope import Unreadable, pack, unpack, unpack_head
from leveret_proto.messages import (
    Abandon,
    Cancel,
    Drain,
    Grant,
    GrantHead,
    Message,
    Refuse,
    Report,
    Resend,
    Resume,
    Settle,
    WorkerClaim,
)
from leveret_proto.topology import CONTROL, RESEND, WORK, WORKERS
from leveret_runtime.away import BrokerAway, told
from leveret_runtime.broker import Consumer, Publisher, Refused, Unroutable, connection, settle
from leveret_runtime.failpoints import failpoint
from leveret_runtime.service import ready
from leveret_runtime.waits import pause
from leveret_worker.worker import Worker

log = structlog.get_logger(__name__)

#: Seconds for declaring and binding.
DECLARE_LIMIT = 15.0
PREFETCH = 32


class SessionRefused(BrokerAway):
    """Another worker is live under this name."""


async def run_session(worker: Worker, over: asyncio.Event) -> None:
    """Serve `worker` over one pair of connections until `over` is set. Raises BrokerAway."""
    name = f"leveret-worker {worker.config.name}"
    async with AsyncExitStack() as stack:
        control = await stack.enter_async_context(connection(worker.config.amqp_url, f"{name} control"))
        bulk = await stack.enter_async_context(connection(worker.config.amqp_url, f"{name} bulk"))
        queue = SessionQueue(worker)
        await queue.declare(control)
        consumer = await Consumer.open(control, queue.name, prefetch=PREFETCH, stop=over, exclusive=True)
        publisher = await Publisher.open(control)
        await stack.enter_async_context(worker.control.over(publisher))
        await stack.enter_async_context(worker.bulk.over(await Publisher.open(bulk)))
        async with asyncio.TaskGroup() as watching:
            watchers = [watching.create_task(outlet.watch()) for outlet in (worker.control, worker.bulk)]
            async with asyncio.TaskGroup() as group:
                group.create_task(_speak(worker, queue, publisher, over))
                group.create_task(_listen(worker, consumer))
            for watcher in watchers:
                watcher.cancel()


class SessionQueue:
    """The session's exclusive queue, bound to exactly what the worker has proved."""

    def __init__(self, worker: Worker) -> None:
        self._name = worker.config.name
        self._session = worker.session
        #: Given by the broker: a worker that chose it could declare an exchange of that name, too.
        self.name = ""
        self._channel: AbstractChannel | None = None
        self._queue: AbstractQueue | None = None
        self._bound: frozenset[str] = frozenset()

    async def declare(self, on: AbstractConnection) -> None:
        """Make the queue and bind it for orders and requests; `bind` adds what can be granted."""
        try:
            async with asyncio.timeout(DECLARE_LIMIT):
                self._channel = await on.channel(publisher_confirms=False)
                self._queue = await self._channel.declare_queue(exclusive=True, auto_delete=True)
                self.name = self._queue.name
                exchange = await self._channel.get_exchange(CONTROL, ensure=False)
                await self._queue.bind(exchange, keys.control(self._name, self._session))
                await self._queue.bind(await self._channel.get_exchange(RESEND, ensure=False), keys.worker(self._name))
        except (AMQPError, TimeoutError) as error:
            raise BrokerAway(told("RabbitMQ", error)) from error

    async def bind(self, offered: Capabilities) -> None:
        """Bring the bindings on `leveret.work` in line with `offered`."""
        assert self._channel is not None
        assert self._queue is not None
        wanted = frozenset(keys.grant(key, self._name, self._session) for key in offered_keys(offered))
        try:
            async with asyncio.timeout(DECLARE_LIMIT):
                exchange = await self._channel.get_exchange(WORK, ensure=False)
                for key in self._bound - wanted:
                    await self._queue.unbind(exchange, key)
                for key in wanted - self._bound:
                    await self._queue.bind(exchange, key)
        except (AMQPError, TimeoutError) as error:
            raise BrokerAway(told("RabbitMQ", error)) from error
        self._bound = wanted


async def _speak(worker: Worker, queue: SessionQueue, publisher: Publisher, over: asyncio.Event) -> None:
    """A beat at once and every interval; a claim as soon as a slot frees; a last beat that closes the session."""
    key = keys.worker(worker.config.name)
    loop = asyncio.get_running_loop()
    due = 0.0
    offered: Capabilities | None = None
    draining = False
    ready(lambda: worker.status)
    while not over.is_set():
        worker.news.clear()
        beat = worker.beat()
        if worker.take_report() or loop.time() >= due or beat.capabilities != offered or beat.draining != draining:
            # Bindings first: what is gained can be granted when the beat says so, and a grant for what is lost comes
            # back to the dispatcher until the beat has told it.
            await queue.bind(beat.capabilities)
            await _publish(publisher, key, beat)
            offered, draining = beat.capabilities, beat.draining
            due = loop.time() + worker.config.beat_interval
        elif beat.tokens:
            claim = WorkerClaim(worker=beat.worker, session=beat.session, tokens=beat.tokens)
            await _publish(publisher, key, claim)
        await pause(max(0.0, due - loop.time()), worker.news, over)
    await _publish(publisher, key, worker.beat(closing=True))


async def _publish(publisher: Publisher, key: str, message: Message) -> None:
    try:
        await publisher.send(WORKERS, key, pack(message), app="worker")
    except (Refused, Unroutable) as error:
        log.warning("beat not taken", reason=str(error))  # the next one says it all again


async def _listen(worker: Worker, consumer: Consumer) -> None:
    async for message in consumer:
        await _obey(worker, message)


async def _hand_back_unread(worker: Worker, delivery: AbstractIncomingMessage, why: str) -> None:
    """Hand back a grant that can't be read, as a newer dispatcher's may be. Else it would come again and again."""
    try:
        head = unpack_head(GrantHead, delivery.body)
    except Unreadable as error:
        log.error("a grant that not even can be handed back", reason=str(error))
        return
    await worker.send_status(worker.on_unreadable_grant(head, why))


async def _obey(worker: Worker, delivery: AbstractIncomingMessage) -> None:
    try:
        message = unpack(delivery.body, delivery.type)
    except Unreadable as error:
        log.error("order that can't be read", reason=str(error))
        if delivery.exchange == WORK:
            await _hand_back_unread(worker, delivery, str(error))
        await settle(delivery)  # other orders are repeated or replaced by who gave them
        return
    match message:
        case Grant():
            status = worker.on_grant(message)
            failpoint("worker.grant.before-ack")
            if status is not None:
                await worker.send_status(status)
        case Settle():
            for grant in message.grants:
                worker.on_settle(grant)
        case Cancel():
            worker.on_cancel(message.grant, message.reason)
        case Abandon():
            worker.on_abandon(message.grant, message.why)
        case Resend():
            worker.on_resend(message)
        case Report():
            worker.report_now()
        case Drain():
            worker.on_drain(message.limit)
        case Resume():
            worker.on_resume()
        case Refuse():
            raise SessionRefused(f"the dispatcher refuses this session: {message.why}")
        case _:
            log.error("order of an unknown kind", type=delivery.type)
    await settle(delivery)
