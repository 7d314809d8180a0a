"""Submitting manifests and waiting for what becomes of them, as any client of the broker would."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from pydantic import SecretStr

from bench.setting import OWNER
from leveret_proto import keys
from leveret_proto.envelope import Parcel, unpack
from leveret_proto.ids import message_id
from leveret_proto.messages import JobEvent, LogEvent
from leveret_proto.messages.state import ENDED
from leveret_proto.topology import EVENTS, SUBMIT
from leveret_runtime.broker import Consumer, Publisher, connection

Happened = JobEvent | LogEvent


class Submitter:
    """Publishes manifests, and hands the ends of jobs and what is told of logs to `on_event`."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    @classmethod
    @asynccontextmanager
    async def running(cls, url: str, on_event: Callable[[Happened], None]) -> AsyncIterator["Submitter"]:
        """Run one for the time of the block."""
        async with connection(SecretStr(url), "bench submitter") as connected:
            channel = await connected.channel()
            queue = await channel.declare_queue(exclusive=True)
            for pattern in (*(f"job.*.*.*.{status}" for status in ENDED), "log.#"):
                await queue.bind(EVENTS, pattern)
            consumer = await Consumer.open(connected, queue.name, prefetch=500)
            async with asyncio.TaskGroup() as group:
                listening = group.create_task(_listen(consumer, on_event))
                yield cls(await Publisher.open(connected))
                listening.cancel()

    async def submit(self, manifest: bytes, name: str | None = None) -> str:
        """Publish a manifest; give its `message_id` when it is confirmed."""
        name = name or message_id()
        parcel = Parcel(manifest, "", "application/yaml", {}, name)
        await self._publisher.send(SUBMIT, keys.submission(OWNER, "bench"), parcel, app="bench")
        return name


async def _listen(consumer: Consumer, on_event: Callable[[Happened], None]) -> None:
    last = 0
    async for message in consumer:
        event = unpack(message.body, message.type)
        if isinstance(event, JobEvent | LogEvent):
            on_event(event)
        last += 1
        if last % 50 == 0:
            await message.ack(multiple=True)
