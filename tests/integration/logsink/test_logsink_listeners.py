"""Who follows a log live is found out by probes, which nothing waits for."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aio_pika
import pytest
from aio_pika.abc import AbstractQueue

from leveret_logsink.listeners import Listeners
from leveret_proto.envelope import pack_bytes
from leveret_proto.messages import TailChunk
from leveret_proto.topology import TAIL
from leveret_runtime.broker import Publisher
from tests.support.vhosts import Vhost

LIMIT = 20.0
KEY = "public.~alice.7.build"
LOG = 1


@dataclass
class Probed:
    """Listeners of a real broker, and whether a probe has come to an end."""

    listeners: Listeners
    channel: aio_pika.abc.AbstractChannel
    probed: asyncio.Event

    async def becomes(self, heard: bool) -> None:
        """Probe the log until it is known to be heard, or unheard."""
        async with asyncio.timeout(LIMIT):
            while self.listeners.heard(LOG) is not heard:
                self.listeners.look(LOG, self._probe)
                await self.probed.wait()
                self.probed.clear()
                await asyncio.sleep(0.01)  # what came of it is noted a moment later

    async def _probe(self, publisher: Publisher) -> None:
        piece = TailChunk(job=7, attempt=1, task="build", offset=5)
        try:
            await publisher.send(TAIL, KEY, pack_bytes(piece, b""), app="logsink", mandatory=True)
        finally:
            self.probed.set()

    async def follow(self, **arguments: object) -> AbstractQueue:
        queue = await self.channel.declare_queue(exclusive=True, arguments={**arguments})
        await queue.bind(TAIL, KEY)
        return queue


@pytest.fixture
async def probed(vhost: Vhost) -> AsyncIterator[Probed]:
    await vhost.provision({})
    async with await aio_pika.connect(vhost.url()) as connection, asyncio.TaskGroup() as group:
        publisher = await Publisher.open(connection)
        yield Probed(Listeners(publisher, group), await connection.channel(), asyncio.Event())


async def test_a_log_is_unheard_until_somebody_follows_it_who_gets_the_probe(probed: Probed) -> None:
    assert probed.listeners.heard(LOG)  # what is not known counts as listened to
    await probed.becomes(heard=False)
    queue = await probed.follow()
    await probed.becomes(heard=True)
    async with asyncio.timeout(LIMIT):
        message = await queue.get(fail=True)
    assert message is not None
    piece = TailChunk.model_validate(message.headers)
    assert (message.body, piece.offset, piece.end) == (b"", 5, False)


async def test_a_follower_whose_queue_refuses_the_probe_is_there(probed: Probed) -> None:
    await probed.becomes(heard=False)
    await probed.follow(**{"x-max-length": 0, "x-overflow": "reject-publish"})
    await probed.becomes(heard=True)


async def test_news_while_a_probe_is_under_way_is_probed_for_again(vhost: Vhost) -> None:
    """Its bytes were left out: who has begun to follow meanwhile hears of them by a probe alone."""
    sent: list[str] = []
    gate = asyncio.Event()

    async def first(_: Publisher) -> None:
        sent.append("first")
        await gate.wait()

    async def second(_: Publisher) -> None:
        sent.append("second")

    await vhost.provision({})
    async with await aio_pika.connect(vhost.url()) as connection:
        async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
            listeners = Listeners(await Publisher.open(connection), group)
            listeners.look(LOG, first)
            listeners.look(LOG, second)
            await asyncio.sleep(0)
            gate.set()
    assert sent == ["first", "second"]
