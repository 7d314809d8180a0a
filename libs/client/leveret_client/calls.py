"""Requests and their answers over RabbitMQ's direct reply-to: no queue is made, and each request has a time limit."""

import asyncio

from aio_pika.abc import AbstractConnection, AbstractIncomingMessage
from aiormq.exceptions import ChannelAccessRefused

from leveret_client.errors import NoAnswer, NotAllowed
from leveret_proto.envelope import Parcel, Unreadable, unpack
from leveret_proto.ids import message_id
from leveret_proto.messages import Message
from leveret_runtime.away import BrokerAway, told
from leveret_runtime.broker import CONNECT_LIMIT, Publisher, Refused, Unroutable

REPLY_TO = "amq.rabbitmq.reply-to"
APP = "leveret-client"


class Calls:
    """A channel for requests; their answers come back on it, found by correlation id."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._waiting: dict[str, asyncio.Future[Message]] = {}

    @classmethod
    async def open(cls, on: AbstractConnection) -> "Calls":
        """Open the channel, ready to be answered. Raises BrokerAway."""
        try:
            async with asyncio.timeout(CONNECT_LIMIT):
                # the broker wants the requests and the reply consumer on one channel
                channel = await on.channel(publisher_confirms=True, on_return_raises=True)
                calls = cls(await Publisher.over(channel))
                replies = await channel.get_queue(REPLY_TO, ensure=False)
                await replies.consume(calls._on_reply, no_ack=True)
        except TimeoutError as error:
            raise BrokerAway(told("RabbitMQ", error)) from error
        return calls

    async def ask(self, exchange: str, key: str, parcel: Parcel, limit: float) -> Message:
        """Publish a request and wait for its answer.

        Args:
            limit: seconds.

        Raises:
            NoAnswer: nobody takes such requests, or none answered within `limit`.
            NotAllowed: the broker refused this account.
            BrokerAway: the connection was lost; not known whether the request was taken.
        """
        correlation = message_id()
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[correlation] = answer
        try:
            async with asyncio.timeout(limit):
                await self._publisher.send(
                    exchange, key, parcel, app=APP, reply_to=REPLY_TO, correlation_id=correlation
                )
                return await answer
        except TimeoutError:
            raise NoAnswer(f"no answer within {limit:.0f} s; is the service that serves {exchange} running?") from None
        except Unroutable:
            raise NoAnswer(
                f"nobody takes what is published to {exchange}; was Leveret set up at this broker?"
            ) from None
        except Refused:
            raise NoAnswer("the broker's queue is full; try again later") from None
        except BrokerAway as away:
            if isinstance(away.__cause__, ChannelAccessRefused):
                raise NotAllowed(f"this account may not publish {key!r} to {exchange}") from None
            raise
        finally:
            del self._waiting[correlation]

    async def _on_reply(self, message: AbstractIncomingMessage) -> None:
        answer = self._waiting.get(message.correlation_id or "")
        if answer is None or answer.done():
            return  # it came after its time limit
        try:
            answer.set_result(unpack(message.body, message.type))
        except Unreadable as error:
            answer.set_exception(NoAnswer(f"the answer can't be read: {error}"))
