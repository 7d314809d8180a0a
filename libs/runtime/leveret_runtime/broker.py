"""RabbitMQ: one connection, publishing that is confirmed or known not to be, and consuming that ends when it must.

Connections here are plain ones, on purpose. A robust connection consumes again behind the service's back and repeats no
publish; here a lost connection ends the session (`BrokerAway`) and `away.keep_going` begins a new one.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import AMQPError, DeliveryError, PublishError
from aiormq.abc import ChannelFrame
from aiormq.exceptions import ChannelInvalidStateError
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from pydantic import SecretStr

from leveret_proto.envelope import Parcel
from leveret_runtime import gathered_frames, hostile_frames
from leveret_runtime.away import BrokerAway, told
from leveret_runtime.waits import first

hostile_frames.install()
gathered_frames.install()

#: Seconds.
CONNECT_LIMIT = 15.0
CONFIRM_LIMIT = 20.0
CLOSE_LIMIT = 5.0
HEARTBEAT = 10
PERSISTENT = 2
#: Bytes published without waiting for the socket.
FLUSH_AFTER = 64 * 1024

_LOST = (AMQPError, ChannelInvalidStateError, ConnectionError, TimeoutError)


class Unroutable(Exception):
    """A mandatory message that no queue took."""


class Refused(Exception):
    """A message that the broker refused (a full queue's back-pressure): publish it again later."""


@asynccontextmanager
async def connection(url: SecretStr, name: str, *, heartbeat: int = HEARTBEAT) -> AsyncIterator[AbstractConnection]:
    """Connect for the time of the block; the block is cancelled with BrokerAway when the connection is lost.

    Args:
        url: `amqp://user:password@host:port/vhost`; `amqps` for TLS.
        name: what the broker's list of connections shows.
        heartbeat: seconds; the broker gives up a silent client after two to three of them.
    """
    try:
        async with asyncio.timeout(CONNECT_LIMIT):
            connected = await aio_pika.connect(
                url.get_secret_value(), client_properties={"connection_name": name}, heartbeat=heartbeat
            )
    # StopAsyncIteration: the library's word for a peer that closes before it has said anything
    except (OSError, AMQPError, TimeoutError, StopAsyncIteration) as error:
        raise BrokerAway(told("RabbitMQ", error)) from error
    lost = asyncio.Event()
    reasons: list[str] = []

    def on_close(_: object, error: BaseException | None) -> None:
        reasons.append(str(error or "connection closed"))
        lost.set()

    connected.close_callbacks.add(on_close)
    try:
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(_raise_when(lost, reasons))
            yield connected
            watcher.cancel()
    finally:
        connected.close_callbacks.discard(on_close)
        try:
            async with asyncio.timeout(CLOSE_LIMIT):
                await connected.close()
        except _LOST:
            pass  # it was lost already


async def _raise_when(lost: asyncio.Event, reasons: list[str]) -> None:
    await lost.wait()
    raise BrokerAway(f"RabbitMQ: {reasons[0]}")


class Publisher:
    """A channel in confirm mode. Every `send` returns only when the broker has taken the message."""

    def __init__(self, channel: aiormq.Channel) -> None:
        """`channel`: the library's lower layer, to which `_publish` writes."""
        self._channel = channel
        self._order = asyncio.Lock()
        self._unflushed = 0

    @classmethod
    async def open(cls, on: AbstractConnection, *, confirms: bool = True) -> "Publisher":
        """Open a channel on `on`. Without `confirms` a message may be lost, and `send` does not wait."""
        try:
            async with asyncio.timeout(CONNECT_LIMIT):
                return await cls.over(await on.channel(publisher_confirms=confirms, on_return_raises=confirms))
        except _LOST as error:
            raise BrokerAway(told("RabbitMQ", error)) from error

    @classmethod
    async def over(cls, channel: AbstractChannel) -> "Publisher":
        """Publish on a channel that has other uses, too."""
        return cls(cast(aiormq.Channel, await channel.get_underlay_channel()))

    async def send(
        self,
        exchange: str,
        key: str,
        parcel: Parcel,
        *,
        app: str,
        mandatory: bool = True,
        reply_to: str | None = None,
        correlation_id: str | None = None,
        headers: dict[str, Any] | None = None,
    ) -> None:
        """Publish persistently and wait for the confirm.

        Raises:
            Unroutable: `mandatory`, and no queue is bound for `key`.
            Refused: a queue was full.
            BrokerAway: not known whether the message was taken; publish it again on a new connection.
        """
        properties = Basic.Properties(
            headers=((parcel.headers | headers) if headers else parcel.headers) or None,
            content_type=parcel.content_type,
            message_type=parcel.type,
            message_id=parcel.message_id,
            app_id=app,
            reply_to=reply_to,
            correlation_id=correlation_id,
            delivery_mode=PERSISTENT,
        )
        try:
            async with asyncio.timeout(CONFIRM_LIMIT):
                await self._publish(Basic.Publish(0, exchange, key, mandatory), properties, parcel.body)
        except PublishError as error:
            raise Unroutable(f"no queue takes {key!r} on {exchange or 'the default exchange'}") from error
        except DeliveryError as error:
            raise Refused(f"{exchange} refused {key!r}") from error
        except _LOST as error:
            raise BrokerAway(told("RabbitMQ", error)) from error
        except (Exception, asyncio.CancelledError) as error:
            # To whoever waits for a confirm of a connection that is closed in order, the library throws one of these.
            task = asyncio.current_task()
            if type(error) not in (Exception, asyncio.CancelledError) or (task and task.cancelling()):
                raise
            raise BrokerAway("RabbitMQ: the connection was closed") from error

    async def _publish(self, method: Basic.Publish, properties: Basic.Properties, body: bytes) -> None:
        """Do as the library's `basic_publish`, for half of its price: it is what a busy service does most.

        Nobody else may publish on this channel, for the broker's confirms count what was published.
        """
        channel = self._channel
        flushed = channel.create_future() if self._flush_is_due(len(body)) else None
        most = channel.max_content_size
        bodies = [ContentBody(body[at : at + most]) for at in range(0, len(body), most)]
        frames: list[Any] = [method, ContentHeader(properties=properties, body_size=len(body)), *bodies]
        frame = ChannelFrame.marshall(channel.number, frames, flushed)
        confirmed: asyncio.Future[Any] | None = None
        async with self._order:
            if channel.is_closed:
                raise ChannelInvalidStateError("the channel is closed")
            if channel.publisher_confirms:
                confirmed = self._expect_confirm(properties.message_id or "")
            try:
                await channel.write_queue.put(frame)
            except BaseException:  # the broker will not see it, so it must not be counted
                if confirmed is not None:
                    confirmed.cancel()
                    channel.confirmations.pop(channel.delivery_tag, None)
                    channel.delivery_tag -= 1
                raise
            if flushed is not None:
                await flushed
        if confirmed is not None:
            await confirmed

    def _expect_confirm(self, message_id: str) -> "asyncio.Future[Any]":
        """Count a message; give what the broker's answer to it will resolve."""
        channel = self._channel
        channel.delivery_tag += 1
        tag = channel.delivery_tag
        confirmed = channel.confirmations[tag] = channel.create_future()
        channel.message_id_delivery_tag[message_id] = tag
        confirmed.add_done_callback(lambda _: self._forget(message_id, tag))
        return confirmed

    def _forget(self, message_id: str, tag: int) -> None:
        if self._channel.message_id_delivery_tag.get(message_id) == tag:
            del self._channel.message_id_delivery_tag[message_id]

    def _flush_is_due(self, size: int) -> bool:
        """Whether this message waits until the socket has taken all: now and then, so that no buffer grows for ever."""
        self._unflushed += size
        if self._unflushed < FLUSH_AFTER:
            return False
        self._unflushed = 0
        return True


class Consumer:
    """Deliveries of one queue, in order. Iteration ends when `stop` is set.

    A closed channel, or a consumer that the broker cancelled (its queue is gone), raises BrokerAway.

    What was delivered but not acked goes back to the queue when the connection closes.
    """

    def __init__(self, channel: AbstractChannel, stop: asyncio.Event | None) -> None:
        self._channel = channel
        self._stop = stop
        self._arrived: asyncio.Queue[AbstractIncomingMessage | BrokerAway] = asyncio.Queue()

    @classmethod
    async def open(
        cls,
        on: AbstractConnection,
        queue: str,
        *,
        prefetch: int,
        stop: asyncio.Event | None = None,
        exclusive: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> "Consumer":
        """Begin to consume `queue` on a channel of its own. `arguments`: of `basic.consume`, as a stream's offset."""
        try:
            async with asyncio.timeout(CONNECT_LIMIT):
                channel = await on.channel(publisher_confirms=False)
                await channel.set_qos(prefetch_count=prefetch)
                consumer = cls(channel, stop)
                channel.close_callbacks.add(consumer._on_close)
                (await channel.get_underlay_channel()).on_consumer_cancel_callbacks.add(consumer._on_cancel)
                source = await channel.get_queue(queue, ensure=False)
                await source.consume(consumer._on_message, exclusive=exclusive, arguments=arguments)
        except _LOST as error:
            raise BrokerAway(told("RabbitMQ", error)) from error
        return consumer

    async def close(self) -> None:
        """Consume no more: the channel closes, and what was not acked goes back."""
        self._channel.close_callbacks.discard(self._on_close)
        try:
            async with asyncio.timeout(CLOSE_LIMIT):
                await self._channel.close()
        except _LOST as error:
            raise BrokerAway(told("RabbitMQ", error)) from error

    async def _on_message(self, message: AbstractIncomingMessage) -> None:
        self._arrived.put_nowait(message)

    def _on_close(self, _: object, error: BaseException | None) -> None:
        self._arrived.put_nowait(BrokerAway(f"RabbitMQ: {error or 'channel closed'}"))

    def _on_cancel(self, frame: Basic.Cancel) -> None:
        # the channel stays open, but nothing will come any more
        self._arrived.put_nowait(BrokerAway(f"RabbitMQ: consumer {frame.consumer_tag} of a lost queue was cancelled"))

    def __aiter__(self) -> "Consumer":
        return self

    async def __anext__(self) -> AbstractIncomingMessage:
        arrived = await self._next()
        if arrived is None:
            raise StopAsyncIteration
        if isinstance(arrived, BrokerAway):
            raise arrived
        return arrived

    async def _next(self) -> AbstractIncomingMessage | BrokerAway | None:
        if self._stop is None:
            return await self._arrived.get()
        if self._stop.is_set():
            return None
        if not self._arrived.empty():
            return self._arrived.get_nowait()
        return await first(self._arrived.get(), self._stop)

    def ready(self, most: int) -> list[AbstractIncomingMessage]:
        """Give up to `most` further deliveries that have arrived already, without waiting: for work in batches."""
        taken: list[AbstractIncomingMessage] = []
        while len(taken) < most and not self._arrived.empty():
            arrived = self._arrived.get_nowait()
            if isinstance(arrived, BrokerAway):
                self._arrived.put_nowait(arrived)
                break
            taken.append(arrived)
        return taken


async def settle(message: AbstractIncomingMessage, *, multiple: bool = False) -> None:
    """Ack `message` (with `multiple`, all before it too). Raises BrokerAway."""
    try:
        await message.ack(multiple=multiple)
    except _LOST as error:
        raise BrokerAway(told("RabbitMQ", error)) from error
