"""Many worker sessions over real AMQP, one slot each, in one process: they beat, and claim when they are told to."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage, AbstractQueue
from pydantic import SecretStr

from bench.played_session import BEAT, PlayedSession
from leveret_proto.envelope import unpack, unpack_as
from leveret_proto.messages import AttemptState, Grant, WorkerEvent
from leveret_proto.topology import EVENTS
from leveret_runtime.broker import Publisher, connection

#: Kinds of jobs that each of them serves.
IMAGES = tuple(f"bench/crowd-{n}" for n in range(4))
#: Seconds after which those that are due send their beat.
TICK = 0.01
#: For declaring queues side by side, which is one round trip each.
CHANNELS = 8
#: Seconds for all that were added to be known to the dispatcher.
JOIN_LIMIT = 120.0


@dataclass(frozen=True)
class Granted:
    """A claim that was answered. Seconds, as `time.perf_counter` tells them."""

    grant: Grant
    claimed: float
    arrived: float

    @property
    def milliseconds(self) -> float:
        """From the claim's publishing to the grant's arrival."""
        return 1000 * (self.arrived - self.claimed)


class Crowd:
    """Sessions, busy but for those that `claim` has claim a slot; what they are granted ends at once."""

    def __init__(self, connected: AbstractConnection, publisher: Publisher, channels: list[AbstractChannel]) -> None:
        self._connected = connected
        self._publisher = publisher
        self._channels = channels
        self._sessions: list[PlayedSession] = []
        #: Those without an unanswered claim.
        self._ready: asyncio.Queue[PlayedSession] = asyncio.Queue()
        self._arrived: asyncio.Queue[tuple[PlayedSession, AbstractIncomingMessage, float]] = asyncio.Queue()
        #: By slot token.
        self._claims: dict[str, asyncio.Future[tuple[Grant, float]]] = {}

    @classmethod
    @asynccontextmanager
    async def running(cls, url: str) -> AsyncIterator["Crowd"]:
        """Run a crowd of none, to begin with, for the time of the block."""
        async with (
            connection(SecretStr(url), "bench crowd: sends") as sends,
            connection(SecretStr(url), "bench crowd: receives") as receives,
        ):
            channels = [await receives.channel(publisher_confirms=False) for _ in range(CHANNELS)]
            crowd = cls(receives, await Publisher.open(sends), channels)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(crowd._beating()), group.create_task(crowd._listening())]
                yield crowd
                for task in tasks:
                    task.cancel()

    def __len__(self) -> int:
        return len(self._sessions)

    async def grow(self, size: int) -> None:
        """Add sessions until there are `size`; returns when the dispatcher has told of each that it joined."""
        new = [
            PlayedSession(self._publisher, f"crowd-{n:05}", IMAGES, slots=1) for n in range(len(self._sessions), size)
        ]
        async with asyncio.timeout(JOIN_LIMIT), self._connected.channel(publisher_confirms=False) as channel:
            told = await channel.declare_queue(exclusive=True)
            await told.bind(EVENTS, "worker.*.joined")
            async with asyncio.TaskGroup() as group:
                for n, entry in enumerate(self._channels):
                    group.create_task(self._enter(entry, new[n::CHANNELS]))
                await _until_joined(told, {session.name for session in new})

    async def claim(self) -> Granted:
        """Have the session that has waited longest claim a slot; give what it was granted for it."""
        session = await self._ready.get()
        (token,) = session.new_tokens(1)
        answer = self._claims[token] = asyncio.get_running_loop().create_future()
        claimed = time.perf_counter()
        await session.claim([token])
        grant, arrived = await answer
        return Granted(grant, claimed, arrived)

    async def _enter(self, channel: AbstractChannel, sessions: list[PlayedSession]) -> None:
        for session in sessions:
            queue = await session.bind(channel)
            await queue.consume(partial(self._on_message, session))
            await session.beat()
            self._sessions.append(session)
            self._ready.put_nowait(session)

    async def _on_message(self, session: PlayedSession, message: AbstractIncomingMessage) -> None:
        self._arrived.put_nowait((session, message, time.perf_counter()))

    async def _listening(self) -> None:
        async with asyncio.TaskGroup() as serving:
            while True:
                session, message, at = await self._arrived.get()
                grant = await session.take(unpack(message.body, message.type))
                await message.ack()
                if grant is not None:
                    answer = self._claims.pop(grant.token)
                    if not answer.done():  # it is where nobody waits any more
                        answer.set_result((grant, at))
                    serving.create_task(self._serve(session, grant))

    async def _serve(self, session: PlayedSession, grant: Grant) -> None:
        await session.status(grant, AttemptState.ENDED)
        await session.end_logs()
        self._ready.put_nowait(session)

    async def _beating(self) -> None:
        """Have each beat every BEAT seconds, spread evenly."""
        due, last = 0.0, time.perf_counter()
        following = 0
        while True:
            await asyncio.sleep(TICK)
            now = time.perf_counter()
            due, last = due + len(self._sessions) * (now - last) / BEAT, now
            async with asyncio.TaskGroup() as group:
                for _ in range(min(int(due), len(self._sessions))):
                    group.create_task(self._sessions[following % len(self._sessions)].beat())
                    following += 1
            due %= 1


async def _until_joined(told: AbstractQueue, expected: set[str]) -> None:
    async with told.iterator(no_ack=True) as messages:
        while expected:
            message = await anext(messages)
            expected.discard(unpack_as(WorkerEvent, message.body, message.type).worker)
