"""A logsink on its stage: a worker that sends chunks, a dispatcher that sends events, and readers of what comes out."""

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
from multidict import CIMultiDictProxy
from pydantic import SecretStr

from leveret_proto import keys, topology
from leveret_proto.envelope import pack, pack_bytes, unpack_as, unpack_headers
from leveret_proto.ids import message_id
from leveret_proto.messages import (
    ArtifactChunk,
    JobEvent,
    JobFacts,
    JobStatus,
    LogChunk,
    LogEvent,
    Message,
    Reason,
    Resend,
    TailChunk,
    TaskResult,
    TaskState,
    Visibility,
)
from leveret_proto.permissions import submitter, worker
from leveret_runtime.broker import Publisher, connection
from tests.support.databases import Database
from tests.support.services import Service, Services
from tests.support.vhosts import Vhost

LIMIT = 20.0
GRANT = message_id()
LINK = "unguessable-word_0123456789"
LINK_KEY = base64.b64encode(bytes(range(2, 34))).decode()


def facts(job: int, *, owner: str = "alice", visibility: Visibility = Visibility.UNLISTED) -> JobFacts:
    return JobFacts(job=job, owner=owner, project="hare", visibility=visibility, submission=f"m{job}", link=LINK)


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def pieces(body: bytes, size: int) -> list[tuple[int, bytes]]:
    return [(start, body[start : start + size]) for start in range(0, len(body), size)]


class Worker:
    """Publishes chunks with the permissions of the worker `name`."""

    def __init__(self, name: str, publisher: Publisher) -> None:
        self.name = name
        self._publisher = publisher

    async def chunk(
        self, job: int, attempt: int, task: str, offset: int, body: bytes, *, whole: bytes | None = None
    ) -> None:
        """Sends a log chunk; with `whole`, it is the last one of a log with those bytes."""
        end = {} if whole is None else {"total": len(whole), "sha256": sha256(whole)}
        parcel = pack_bytes(LogChunk(grant=GRANT, offset=offset, **end), body)  # type: ignore[arg-type]
        await self._publisher.send(topology.LOGS, keys.log_chunk(self.name, job, attempt, task), parcel, app="worker")

    async def log(self, job: int, attempt: int, task: str, body: bytes, *, size: int = 1000) -> None:
        """Sends a whole log in order."""
        for offset, part in pieces(body, size):
            await self.chunk(job, attempt, task, offset, part)
        await self.chunk(job, attempt, task, len(body), b"", whole=body)

    async def artifact(
        self, job: int, attempt: int, index: int, name: str, parts: Sequence[tuple[int, bytes]], whole: bytes
    ) -> None:
        """Sends an artifact's parts in the order given, and its end."""
        where = keys.artifact_chunk(self.name, job, attempt)
        for offset, body in parts:
            told = ArtifactChunk(grant=GRANT, index=index, path=f"out/{name}", name=name, offset=offset)
            await self._publisher.send(topology.ARTIFACTS, where, pack_bytes(told, body), app="worker")
        told = ArtifactChunk(
            grant=GRANT, index=index, path=f"out/{name}", name=name, offset=len(whole), total=len(whole),
            sha256=sha256(whole),
        )  # fmt: skip
        await self._publisher.send(topology.ARTIFACTS, where, pack_bytes(told, b""), app="worker")


class Dispatcher:
    """Publishes job events as the dispatcher does."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._seqs: dict[int, int] = {}

    async def tell(self, about: JobFacts, status: JobStatus, reason: Reason, **more: Any) -> JobEvent:
        seq = self._seqs[about.job] = self._seqs.get(about.job, 0) + 1
        event = JobEvent(
            facts=about, source="dispatcher", seq=seq, at=datetime.now(UTC), status=status, reason=reason, **more
        )
        await self.repeat(event)
        return event

    async def repeat(self, event: JobEvent) -> None:
        key = keys.job_event(event.facts.visibility, event.facts.owner, event.facts.job, event.status)
        await self._publisher.send(topology.RECORD, key, pack(event), app="dispatcher")

    async def started(self, about: JobFacts, attempt: int, worker: str) -> None:
        await self.tell(about, JobStatus.RUNNING, Reason.STARTED, attempt=attempt, worker=worker)

    async def ended(self, about: JobFacts, attempt: int, worker: str, *ran: str, skipped: Sequence[str] = ()) -> None:
        tasks = [TaskResult(name=name, state=TaskState.SUCCESS) for name in ran]
        tasks += [TaskResult(name=name, state=TaskState.SKIPPED) for name in skipped]
        await self.tell(about, JobStatus.SUCCESS, Reason.COMPLETED, attempt=attempt, worker=worker, tasks=tuple(tasks))


class Observed:
    """What arrives in a queue bound to everything of an exchange."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue()

    async def on_message(self, message: Any) -> None:
        self._queue.put_nowait(message)

    async def next(self) -> Any:
        async with asyncio.timeout(LIMIT):
            return await self._queue.get()

    async def log_event(self) -> LogEvent:
        """The next log event; a job's own events are passed over."""
        while True:
            message = await self.next()
            if message.type == LogEvent.TYPE:
                return LogEvent.model_validate_json(message.body)

    async def log_events(self, count: int) -> list[LogEvent]:
        return [await self.log_event() for _ in range(count)]

    async def resend(self) -> Resend:
        return unpack_as(Resend, (message := await self.next()).body, message.type)

    async def tail(self) -> tuple[TailChunk, bytes]:
        message = await self.next()
        return unpack_headers(TailChunk, message.headers, message.type), message.body

    def empty(self) -> bool:
        return self._queue.empty()


@dataclass
class Stage:
    """Everything a test of logsink needs. `w1` and `w2` are workers, `alice` an owner's account."""

    vhost: Vhost
    database: Database
    services: Services
    storage: Path
    w1: Worker
    w2: Worker
    dispatcher: Dispatcher
    events: Observed
    tail: Observed
    #: What w1 is asked to send again.
    asked: Observed
    dead: Observed
    http: aiohttp.ClientSession
    alice: Any

    async def logsink(self, *, failpoint: str | None = None, ready: bool = True, **more: str | None) -> Service:
        """Starts a logsink on a free port, with an `end_wait` that no test has to wait for unless it says so.

        `more`: configuration keys; None: not given.
        """
        environment = {
            "LEVERET_LOGSINK_AMQP_URL": self.vhost.url("logsink"),
            "LEVERET_LOGSINK_DATABASE_URL": self.database.dsn_for("logsink"),
            "LEVERET_LOGSINK_STORAGE": str(self.storage),
            "LEVERET_LOGSINK_PORT": "0",
            "LEVERET_LOGSINK_END_WAIT": "300",
            "LEVERET_LOGSINK_LOGS_URL": "https://logs.example.org/",
            "LEVERET_LOGSINK_LINK_KEY": LINK_KEY,
        }
        for name, value in more.items():
            environment.pop(f"LEVERET_LOGSINK_{name.upper()}", None)
            if value is not None:
                environment[f"LEVERET_LOGSINK_{name.upper()}"] = value
        return await self.services.start("leveret_logsink.main", environment, failpoint=failpoint, ready=ready)

    def url(self, service: Service) -> str:
        """Where a logsink that is ready serves, as its log says."""
        for line in service.log.read_text().splitlines():
            if line.startswith("{") and json.loads(line).get("event") == "ready":
                found = re.search(r"http://\S+", line.replace('"', " "))
                assert found is not None
                return found[0]
        raise AssertionError(f"{service.log} has no line `ready`")

    async def get(self, url: str, method: str = "GET", **headers: str) -> tuple[int, CIMultiDictProxy[str], bytes]:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.request(method, url, headers=given) as response:
            return response.status, response.headers, await response.read()

    async def ask(self, key: str, message: Message) -> asyncio.Queue[Any]:
        """Gives a command as alice; the reply will be in the queue that is returned."""
        channel = await self.alice.channel()
        replies: asyncio.Queue[Any] = asyncio.Queue()
        queue = await channel.get_queue("amq.rabbitmq.reply-to", ensure=False)
        await queue.consume(replies.put, no_ack=True)
        await (await Publisher.over(channel)).send(
            topology.COMMANDS, key, pack(message), app="test", reply_to="amq.rabbitmq.reply-to", correlation_id="c1"
        )
        return replies

    async def command(self, key: str, message: Message) -> Any:
        """Gives a command as alice and returns the reply."""
        async with asyncio.timeout(LIMIT):
            reply = await (await self.ask(key, message)).get()
        assert reply.correlation_id == "c1"
        return reply

    async def until(self, query: str, *arguments: Any) -> Any:
        """Waits until a query on logsink's schema gives something true; for what no message tells of."""
        on = await asyncpg.connect(self.database.dsn, server_settings={"search_path": "logsink"})
        try:
            async with asyncio.timeout(LIMIT):
                while not (found := await on.fetchval(query, *arguments)):
                    await asyncio.sleep(0.05)
                return found
        finally:
            await on.close()


@asynccontextmanager
async def staged(vhost: Vhost, database: Database, services: Services, storage: Path) -> AsyncIterator[Stage]:
    await vhost.provision({"w1": worker("w1"), "w2": worker("w2"), "alice": submitter(("alice",))})

    def connect(user: str) -> Any:
        return connection(SecretStr(vhost.url(user)), f"test {user}")

    async with (
        connect("w1") as w1,
        connect("w2") as w2,
        connect("dispatcher") as dispatcher,
        connect("alice") as alice,
        connect("admin") as admin,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LIMIT)) as http,
    ):
        yield Stage(
            vhost, database, services, storage,
            w1=Worker("w1", await Publisher.open(w1)),
            w2=Worker("w2", await Publisher.open(w2)),
            dispatcher=Dispatcher(await Publisher.open(dispatcher)),
            events=await _observe(admin, topology.EVENTS),
            tail=await _observe(admin, topology.TAIL),
            asked=await _observe(w1, topology.RESEND, keys.worker("w1")),
            dead=await _observe(admin, topology.DEAD),
            http=http,
            alice=alice,
        )  # fmt: skip


async def _observe(on: Any, exchange: str, key: str = "#") -> Observed:
    observed = Observed()
    channel = await on.channel()
    queue = await channel.declare_queue(exclusive=True)
    await queue.bind(await channel.get_exchange(exchange, ensure=False), key)
    await queue.consume(observed.on_message, no_ack=True)
    return observed
