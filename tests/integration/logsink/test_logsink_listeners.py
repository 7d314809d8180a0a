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
    """Listeners of a real broker, and the probes that came to an end."""

    listeners: Listeners
    channel: aio_pika.abc.AbstractChannel
    probes: asyncio.Semaphore

    async def heard(self) -> bool:
        """Whether the log is known to be listened to, once it has been probed."""
        self.listeners.look(LOG, self._probe)
        async with asyncio.timeout(LIMIT):
            await self.probes.acquire()
            await asyncio.sleep(0)  # the probe's task ends
        return self.listeners.heard(LOG)

    async def _probe(self, publisher: Publisher) -> None:
        piece = TailChunk(job=7, attempt=1, task="build", offset=5)
        try:
            await publisher.send(TAIL, KEY, pack_bytes(piece, b""), app="logsink", mandatory=True)
        finally:
            self.probes.release()

    async def follow(self, **arguments: object) -> AbstractQueue:
        queue = await self.channel.declare_queue(exclusive=True, arguments={**arguments})
        await queue.bind(TAIL, KEY)
        return queue


@pytest.fixture
async def probed(vhost: Vhost) -> AsyncIterator[Probed]:
    await vhost.provision({})
    async with await aio_pika.connect(vhost.url()) as connection, asyncio.TaskGroup() as group:
        publisher = await Publisher.open(connection)
        yield Probed(Listeners(publisher, group), await connection.channel(), asyncio.Semaphore(0))


async def test_a_log_is_unheard_until_somebody_follows_it_who_gets_the_probe(probed: Probed) -> None:
    assert probed.listeners.heard(LOG)  # what is not known counts as listened to
    assert not await probed.heard()
    queue = await probed.follow()
    assert await probed.heard()
    async with asyncio.timeout(LIMIT):
        message = await queue.get(fail=True)
    assert message is not None
    piece = TailChunk.model_validate(message.headers)
    assert (message.body, piece.offset, piece.end) == (b"", 5, False)


async def test_a_follower_whose_queue_refuses_the_probe_is_there(probed: Probed) -> None:
    assert not await probed.heard()
    await probed.follow(**{"x-max-length": 0, "x-overflow": "reject-publish"})
    assert await probed.heard()
