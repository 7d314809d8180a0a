"""A subscription: a private queue at the broker, bound to events and live logs, that is gone with its connection."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from aio_pika.abc import AbstractConnection, AbstractIncomingMessage, AbstractQueue
from aiormq.exceptions import ChannelAccessRefused

from leveret_client.errors import NotAllowed
from leveret_proto.base import Visibility
from leveret_proto.envelope import Unreadable, unpack, unpack_headers
from leveret_proto.messages import Event, JobFacts, TailChunk
from leveret_proto.topology import EVENTS, MIB, TAIL
from leveret_proto.words import escape
from leveret_runtime.away import BrokerAway, told
from leveret_runtime.broker import CONNECT_LIMIT, Consumer, settle

#: What a follower that does not keep up may leave at the broker, in bytes; the oldest is dropped past it.
BACKLOG = 64 * MIB
PREFETCH = 200
#: Kinds of events about an owner's jobs.
JOB_KINDS = ("job", "task", "log", "delivery")
#: Kinds of an owner's other events.
OTHER_KINDS = ("submission", "group")


@dataclass(frozen=True, slots=True)
class LogPiece:
    """Bytes of a running task's log, as the logsink sends them to live followers."""

    chunk: TailChunk
    body: bytes


class Subscription:
    """Events and live log pieces in the order the broker gives them. Made by `Client.subscribe`."""

    def __init__(self, queue: AbstractQueue, consumer: Consumer) -> None:
        self._queue = queue
        self._consumer = consumer

    @classmethod
    async def open(cls, on: AbstractConnection) -> "Subscription":
        """Make the queue and begin to consume it; it is bound to nothing yet. Raises BrokerAway."""
        try:
            async with asyncio.timeout(CONNECT_LIMIT):
                channel = await on.channel(publisher_confirms=False)
                queue = await channel.declare_queue(
                    exclusive=True, auto_delete=True, arguments={"x-max-length-bytes": BACKLOG}
                )
        except TimeoutError as error:
            raise BrokerAway(told("RabbitMQ", error)) from error
        return cls(queue, await Consumer.open(on, queue.name, prefetch=PREFETCH))

    async def bind_owner(self, owner: str, visibilities: Iterable[Visibility] = Visibility) -> None:
        """Bind every event about the jobs, groups and submissions of `owner` that have one of `visibilities`."""
        for visibility in visibilities:
            for kind in (*JOB_KINDS, *OTHER_KINDS):
                await self._bind(EVENTS, f"{kind}.{visibility}.{escape(owner)}.#")

    async def bind_public(self) -> None:
        """Bind every public event, whoever's job it is."""
        for kind in (*JOB_KINDS, *OTHER_KINDS):
            await self._bind(EVENTS, f"{kind}.{Visibility.PUBLIC}.*.#")

    async def bind_workers(self) -> None:
        """Bind events about workers."""
        await self._bind(EVENTS, "worker.#")

    async def bind_job(self, facts: JobFacts) -> None:
        """Bind every event about one job."""
        for kind in JOB_KINDS:
            await self._bind(EVENTS, f"{kind}.{facts.visibility}.{escape(facts.owner)}.{facts.job}.#")

    async def bind_tail(self, visibility: Visibility, owner: str, job: int) -> None:
        """Bind the live logs of one job."""
        await self._bind(TAIL, f"{visibility}.{escape(owner)}.{job}.#")

    async def _bind(self, exchange: str, pattern: str) -> None:
        try:
            await self._queue.bind(exchange, pattern, timeout=CONNECT_LIMIT)
        except ChannelAccessRefused:
            raise NotAllowed(f"this account may not follow {pattern!r} on {exchange}") from None
        except TimeoutError as error:
            raise BrokerAway(told("RabbitMQ", error)) from error

    async def next(self, limit: float) -> Event | LogPiece | None:
        """Give the next arrival, or None after `limit` seconds. Raises BrokerAway."""
        try:
            async with asyncio.timeout(limit):
                return await self.__anext__()
        except TimeoutError:
            return None

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> Event | LogPiece:
        while True:
            message = await self._consumer.__anext__()
            await settle(message)
            received = _read(message)
            if received is not None:
                return received


def _read(message: AbstractIncomingMessage) -> Event | LogPiece | None:
    """Give what arrived; None for what a newer sender says and this version does not know."""
    try:
        if message.type == TailChunk.TYPE:
            return LogPiece(unpack_headers(TailChunk, dict(message.headers), message.type), message.body)
        read = unpack(message.body, message.type)
    except Unreadable:
        return None
    return read if isinstance(read, Event) else None
