"""A worker session played over real AMQP, whose builds do nothing: what is measured is the engine, not a guest."""

import asyncio
import platform
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

from aio_pika.abc import AbstractConnection
from pydantic import SecretStr

from leveret_proto import keys
from leveret_proto.capability import Capabilities, ImageOffer, offered_keys
from leveret_proto.envelope import pack, unpack
from leveret_proto.messages import (
    AttemptState,
    AttemptStatus,
    Grant,
    HeldGrant,
    JobStatus,
    LogDigest,
    Reason,
    Report,
    Settle,
    TaskResult,
    TaskState,
    WorkerBeat,
    WorkerClaim,
)
from leveret_proto.topology import CONTROL, STATUS, WORK, WORKERS
from leveret_runtime.broker import Consumer, Publisher, connection, settle

#: Offered by this worker alone.
IMAGE = "bench/nothing"
NAME = "bench"
MANIFEST = f"image: {IMAGE}\ntasks:\n  - nothing: 'true'\n".encode()
BEAT = 10.0

Serve = Callable[["PlayedWorker", Grant], Awaitable[None]]


class PlayedWorker:
    """One session: claims, beats, and `serve` called for each grant in a task of its own."""

    def __init__(self, publisher: Publisher, slots: int) -> None:
        self.session = str(uuid4())
        self._publisher = publisher
        self._slots = slots
        self._tokens = {str(uuid4()) for _ in range(slots)}
        self._fresh: list[str] = []
        self._freed = asyncio.Event()
        self._held: dict[str, HeldGrant] = {}
        self._offer = Capabilities(images=(ImageOffer(arch=platform.machine(), name=IMAGE, digest="0" * 64),))
        self._spool = str(uuid4())
        self._beats = 0

    @classmethod
    @asynccontextmanager
    async def running(cls, url: str, slots: int, serve: Serve) -> AsyncIterator["PlayedWorker"]:
        """Run one for the time of the block."""
        async with connection(SecretStr(url), "bench worker") as connected:
            worker = cls(await Publisher.open(connected), slots)
            consumer = await worker._subscribe(connected)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(part) for part in (worker._beating(), worker._claiming())]
                tasks.append(group.create_task(worker._listening(consumer, serve)))
                yield worker
                for task in tasks:
                    task.cancel()
            await worker._beat(closing=True)

    async def _subscribe(self, connected: AbstractConnection) -> Consumer:
        channel = await connected.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(CONTROL, keys.control(NAME, self.session))
        for key in offered_keys(self._offer):
            await queue.bind(WORK, keys.grant(key, NAME, self.session))
        return await Consumer.open(connected, queue.name, prefetch=100)

    async def status(self, grant: Grant, state: AttemptState, *logs: LogDigest) -> None:
        """Report an attempt as running, or as ended in success."""
        seq = self._held[grant.grant].seq + 1
        ended = state is AttemptState.ENDED
        task_state = TaskState.SUCCESS if ended else TaskState.RUNNING
        status = AttemptStatus(
            grant=grant.grant, job=grant.facts.job, attempt=grant.attempt, worker=NAME, session=self.session, seq=seq,
            state=state, result=JobStatus.SUCCESS if ended else None, reason=Reason.COMPLETED if ended else None,
            tasks=tuple(TaskResult(name=task.name, state=task_state) for task in grant.manifest.tasks), logs=logs,
        )  # fmt: skip
        self._held[grant.grant] = self._held[grant.grant].model_copy(update={"state": state, "seq": seq})
        await self._publisher.send(STATUS, keys.status(NAME, grant.facts.job, grant.attempt), pack(status), app=NAME)
        if ended:
            self._fresh.append(str(uuid4()))
            self._freed.set()

    async def _listening(self, consumer: Consumer, serve: Serve) -> None:
        async with asyncio.TaskGroup() as serving:
            async for message in consumer:
                said = unpack(message.body, message.type)
                if isinstance(said, Grant):
                    self._tokens.discard(said.token)
                    self._held[said.grant] = HeldGrant(
                        grant=said.grant, job=said.facts.job, attempt=said.attempt, state=AttemptState.GRANTED, seq=0
                    )
                    serving.create_task(serve(self, said))  # type: ignore[arg-type]
                elif isinstance(said, Settle):
                    self._held.pop(said.grant, None)
                elif isinstance(said, Report):
                    await self._beat()
                await settle(message)

    async def _beating(self) -> None:
        while True:
            await self._beat()
            await asyncio.sleep(BEAT)

    async def _beat(self, *, closing: bool = False) -> None:
        self._beats += 1
        beat = WorkerBeat(
            worker=NAME, session=self.session, spool=self._spool, beat=self._beats, capabilities=self._offer,
            slots=self._slots, tokens=() if closing else tuple(self._tokens), held=tuple(self._held.values()),
            closing=closing,
        )  # fmt: skip
        await self._publisher.send(WORKERS, keys.worker(NAME), pack(beat), app=NAME)

    async def _claiming(self) -> None:
        """Claim freed slots, those that became free at once in one message: as a worker does."""
        while True:
            await self._freed.wait()
            self._freed.clear()
            tokens, self._fresh = tuple(self._fresh), []
            self._tokens.update(tokens)
            claim = WorkerClaim(worker=NAME, session=self.session, tokens=tokens)
            await self._publisher.send(WORKERS, keys.worker(NAME), pack(claim), app=NAME)


async def do_nothing(worker: PlayedWorker, grant: Grant) -> None:
    """Serve a grant whose build takes no time."""
    await worker.status(grant, AttemptState.RUNNING)
    await worker.status(grant, AttemptState.ENDED)
