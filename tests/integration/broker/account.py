"""One account at the broker, and what it is let do: each attempt on a channel of its own, for a refusal closes it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused
from pamqp import commands as spec

LIMIT = 15.0


class Account:
    """Tries things. Every method says whether the broker allowed it; any other failure is raised."""

    def __init__(self, name: str, on: AbstractConnection) -> None:
        self.name = name
        self.on = on

    @classmethod
    @asynccontextmanager
    async def connected(cls, name: str, url: str) -> AsyncIterator["Account"]:
        """Connect as `name` for the time of the block."""
        async with asyncio.timeout(LIMIT):
            connection = await aio_pika.connect(url)
        async with connection:
            yield cls(name, connection)

    async def may_publish(self, exchange: str, key: str, body: bytes = b"", **properties: Any) -> bool:
        sent = spec.Basic.Properties(**properties)
        return await self._may(
            lambda channel: channel.basic_publish(body, exchange=exchange, routing_key=key, properties=sent)
        )

    async def may_consume(self, queue: str) -> bool:
        async def nothing(_: object) -> None:
            pass

        async def consume(channel: AbstractChannel) -> None:
            await channel.basic_qos(prefetch_count=1)
            await channel.basic_consume(queue, nothing)

        return await self._may(consume)

    async def may_purge(self, queue: str) -> bool:
        return await self._may(lambda channel: channel.queue_purge(queue))

    async def may_delete(self, queue: str) -> bool:
        return await self._may(lambda channel: channel.queue_delete(queue))

    async def may_bind(self, queue: str, exchange: str, pattern: str) -> bool:
        return await self._may(lambda channel: channel.queue_bind(queue, exchange, pattern))

    async def may_bind_exchange(self, destination: str, source: str, pattern: str) -> bool:
        return await self._may(lambda channel: channel.exchange_bind(destination, source, pattern))

    async def may_declare(self, queue: str, **arguments: Any) -> bool:
        """Try with a durable queue, which stays."""
        return await self._may(lambda channel: channel.queue_declare(queue, durable=True, arguments=arguments))

    async def may_declare_exchange(self, exchange: str) -> bool:
        return await self._may(lambda channel: channel.exchange_declare(exchange, exchange_type="topic"))

    async def own_queue(self, name: str = "", **arguments: Any) -> str:
        """Make an exclusive queue that lives as long as the connection; without `name` the broker names it."""
        async with asyncio.timeout(LIMIT):
            channel = await (await self.on.channel()).get_underlay_channel()
            made = await channel.queue_declare(name, exclusive=True, arguments=arguments)
        assert made.queue is not None
        return made.queue

    async def _may(self, attempt: Callable[[AbstractChannel], Awaitable[object]]) -> bool:
        async with asyncio.timeout(LIMIT):
            channel = await self.on.channel()
            try:
                await attempt(await channel.get_underlay_channel())
            except ChannelAccessRefused:
                return False
            await channel.close()
        return True
