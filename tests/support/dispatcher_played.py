"""The dispatcher's side of the contract, played by the test, so that the worker can be tested by itself."""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from leveret_proto import keys
from leveret_proto.envelope import pack, unpack
from leveret_proto.manifest import read
from leveret_proto.messages import AttemptStatus, Grant, JobFacts, LogChunk, Message, Resend, WorkerBeat, WorkerClaim
from leveret_proto.topology import (
    CONTROL,
    DISPATCHER_STATUS,
    DISPATCHER_WORKERS,
    RESEND,
    WORK,
    logsink_artifacts,
    logsink_logs,
)
from tests.support.services import Service

T = TypeVar("T", bound=Message)
LIMIT = 30.0
#: Starts the worker `w1`; keyword arguments change its environment.
StartWorker = Callable[..., Awaitable[Service]]


def make_grant(beat: WorkerBeat, manifest: str, **given: Any) -> Grant:
    """A grant of `manifest` for the first token of `beat`."""
    reading = read(manifest)
    assert reading.manifest is not None, reading.diagnostics
    fields: dict[str, Any] = {
        "grant": str(uuid4()),
        "facts": JobFacts(job=7, owner="me", project="p", submission="s-1", link="l" * 32),
        "attempt": 1,
        "worker": beat.worker,
        "session": beat.session,
        "token": beat.tokens[0] if beat.tokens else str(uuid4()),
        "epoch": 1,
        "manifest": reading.manifest,
        "time_limit": 60,
        "log_limit": 2**26,
        "job_log_limit": 2**26,
        "artifact_limit": 2**26,
    }
    return Grant(**(fields | given))


@dataclass
class DispatcherPlayed:
    """Reads what a worker says, grants and orders."""

    channel: aio_pika.abc.AbstractChannel
    said: dict[type[Message], asyncio.Queue[Message]] = field(default_factory=lambda: defaultdict(asyncio.Queue))
    logs: dict[str, bytearray] = field(default_factory=dict)
    ends: dict[str, LogChunk] = field(default_factory=dict)
    artifacts: bytearray = field(default_factory=bytearray)
    logged: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    @asynccontextmanager
    async def listening(cls, url: str, job: int = 7) -> AsyncIterator["DispatcherPlayed"]:
        async with await aio_pika.connect(url) as connection:
            played = cls(await connection.channel(on_return_raises=True))
            await played._listen(job)
            yield played

    async def _listen(self, job: int) -> None:
        channel, played = self.channel, self
        for name in (DISPATCHER_WORKERS, DISPATCHER_STATUS):
            queue = await channel.get_queue(name, ensure=False)
            await queue.consume(played._on_message, no_ack=True)
        part = keys.partition(job)
        await (await channel.get_queue(logsink_logs(part), ensure=False)).consume(played._on_log, no_ack=True)
        queue = await channel.get_queue(logsink_artifacts(part), ensure=False)
        await queue.consume(played._on_artifact, no_ack=True)

    async def _on_message(self, message: AbstractIncomingMessage) -> None:
        said = unpack(message.body, message.type)
        self.said[type(said)].put_nowait(said)

    async def _on_log(self, message: AbstractIncomingMessage) -> None:
        key = keys.parse_log_chunk(message.routing_key or "")
        chunk = LogChunk.model_validate(message.headers)
        content = self.logs.setdefault(key.task, bytearray())
        content.extend(bytes(max(0, chunk.offset - len(content))))
        content[chunk.offset : chunk.offset + len(message.body)] = message.body
        if chunk.total is not None:
            self.ends[key.task] = chunk
        self.logged.set()

    async def log_shows(self, task: str, text: bytes, *, limit: float = LIMIT) -> None:
        """Wait until `text` has come in the log of `task`."""
        async with asyncio.timeout(limit):
            while text not in self.logs.get(task, b""):
                self.logged.clear()
                await self.logged.wait()

    async def log(self, task: str) -> bytes:
        """The whole log of `task`, once it is there as its end says; its chunks may come in any order."""
        async with asyncio.timeout(LIMIT):
            while (whole := self._whole(task)) is None:
                self.logged.clear()
                await self.logged.wait()
        return whole

    def _whole(self, task: str) -> bytes | None:
        end, content = self.ends.get(task), bytes(self.logs.get(task, b""))
        return content if end is not None and hashlib.sha256(content).hexdigest() == end.sha256 else None

    async def _on_artifact(self, message: AbstractIncomingMessage) -> None:
        self.artifacts.extend(message.body)

    async def grant(self, grant: Grant, arch: str, image: str = "test/process") -> None:
        key = keys.grant(keys.escape(arch) + "." + keys.escape(image) + ".any", grant.worker, grant.session)
        await self._publish(WORK, key, grant)

    async def grant_as(self, type_: str, body: bytes, grant: Grant, arch: str, image: str = "test/process") -> None:
        """Send `body` where `grant` would go."""
        key = keys.grant(keys.escape(arch) + "." + keys.escape(image) + ".any", grant.worker, grant.session)
        target = await self.channel.get_exchange(WORK, ensure=False)
        await target.publish(aio_pika.Message(body, type=type_), key, mandatory=True)

    async def order(self, beat: WorkerBeat, order: Message) -> None:
        await self._publish(CONTROL, keys.control(beat.worker, beat.session), order)

    async def ask_again(self, worker: str, wanted: Resend) -> None:
        """Ask for parts of a log again, as logsink would, which has lost all that it had of any."""
        self.logs.clear()
        self.ends.clear()
        await self._publish(RESEND, keys.worker(worker), wanted)

    async def _publish(self, exchange: str, key: str, message: Message) -> None:
        parcel = pack(message)
        target = await self.channel.get_exchange(exchange, ensure=False)
        body = aio_pika.Message(parcel.body, type=parcel.type, message_id=parcel.message_id)
        await target.publish(body, key, mandatory=True)

    async def beat(self, *, limit: float = LIMIT, **wanted: Any) -> WorkerBeat:
        """The next beat whose fields are as wanted."""
        while True:
            found = await self._next(WorkerBeat, limit)
            if all(getattr(found, name) == value for name, value in wanted.items()):
                return found

    async def claim(self) -> WorkerClaim:
        return await self._next(WorkerClaim)

    async def freed_slot(self, grant: Grant, *, limit: float = LIMIT) -> WorkerClaim:
        """The first claim for the slot that `grant` had, of a worker with one slot."""
        while grant.token in (claim := await self._next(WorkerClaim, limit)).tokens:
            pass
        return claim

    async def status(self, state: str, *, limit: float = LIMIT) -> AttemptStatus:
        """The next status in `state`."""
        while True:
            found = await self._next(AttemptStatus, limit)
            if found.state == state:
                return found

    async def _next(self, kind: type[T], limit: float = LIMIT) -> T:
        async with asyncio.timeout(limit):
            message = await self.said[kind].get()
        assert isinstance(message, kind)
        return message
