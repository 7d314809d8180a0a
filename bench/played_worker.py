"""A worker played over real AMQP, whose builds do nothing: what is measured is the engine, not a guest."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from pydantic import SecretStr

from bench.played_session import BEAT, PlayedSession
from leveret_proto.envelope import unpack
from leveret_proto.messages import AttemptState, Grant, LogDigest
from leveret_runtime.broker import Consumer, Publisher, connection, settle

#: Offered by this worker alone.
IMAGE = "bench/nothing"
NAME = "bench"
MANIFEST = f"image: {IMAGE}\ntasks:\n  - nothing: 'true'\n".encode()

Serve = Callable[["PlayedWorker", Grant], Awaitable[None]]


class PlayedWorker:
    """One session that claims slots as soon as they are free; `serve` is called for each grant in its own task."""

    def __init__(self, session: PlayedSession, slots: int) -> None:
        self._session = session
        session.new_tokens(slots)
        self._freed = 0
        self._any_freed = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def running(cls, url: str, slots: int, serve: Serve) -> AsyncIterator["PlayedWorker"]:
        """Run one for the time of the block."""
        async with connection(SecretStr(url), "bench worker") as connected:
            session = PlayedSession(await Publisher.open(connected), NAME, [IMAGE], slots)
            queue = await session.bind(await connected.channel())
            consumer = await Consumer.open(connected, queue.name, prefetch=100)
            worker = cls(session, slots)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(part) for part in (worker._beating(), worker._claiming())]
                tasks.append(group.create_task(worker._listening(consumer, serve)))
                yield worker
                for task in tasks:
                    task.cancel()
            await session.end_logs()
            await session.beat(closing=True)

    async def status(self, grant: Grant, state: AttemptState, *logs: LogDigest) -> None:
        """Report an attempt as running, or as ended in success, which frees its slot."""
        await self._session.status(grant, state, *logs)
        if state is AttemptState.ENDED:
            self._freed += 1
            self._any_freed.set()

    async def end_logs(self) -> None:
        """Send the empty logs of what has ended."""
        await self._session.end_logs()

    async def _listening(self, consumer: Consumer, serve: Serve) -> None:
        async with asyncio.TaskGroup() as serving:
            async for message in consumer:
                grant = await self._session.take(unpack(message.body, message.type))
                if grant is not None:
                    serving.create_task(serve(self, grant))  # type: ignore[arg-type]
                await settle(message)

    async def _beating(self) -> None:
        while True:
            await self._session.beat()
            await asyncio.sleep(BEAT)

    async def _claiming(self) -> None:
        """Claim freed slots, those that became free at once in one message: as a worker does."""
        while True:
            await self._any_freed.wait()
            self._any_freed.clear()
            freed, self._freed = self._freed, 0
            await self._session.claim(self._session.new_tokens(freed))


async def do_nothing(worker: PlayedWorker, grant: Grant) -> None:
    """Serve a grant whose build takes no time: one snapshot says it all, as a worker's newest one does."""
    await worker.status(grant, AttemptState.ENDED)
