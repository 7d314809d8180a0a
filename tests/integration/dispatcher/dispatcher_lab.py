"""What the dispatcher's tests stand on: real workers' sessions, an observer of events, a client that commands."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue
from pydantic import SecretStr

from leveret_dispatcher.config import Config
from leveret_dispatcher.main import serve
from leveret_proto import keys
from leveret_proto.base import JobFacts
from leveret_proto.capability import Capabilities, ImageOffer, Requirement, offered_keys
from leveret_proto.envelope import pack, unpack
from leveret_proto.manifest import Manifest
from leveret_proto.messages import (
    Artifact,
    AttemptState,
    AttemptStatus,
    Grant,
    HeldGrant,
    JobEvent,
    JobStatus,
    Message,
    NumberedEvent,
    ReadyJob,
    TaskResult,
    TaskState,
    WorkerBeat,
    WorkerClaim,
)
from leveret_proto.topology import COMMANDS, CONTROL, JOBS, NOTIFIER_JOBS, RECORD, STATUS, WORK, WORKERS
from tests.support.databases import Database
from tests.support.vhosts import Vhost

LIMIT = 20.0
OFFER = Capabilities(images=(ImageOffer(arch="x86_64", name="debian/trixie", digest="00"),))
REQUIREMENT = Requirement(arch="x86_64", image="debian/trixie")
M = TypeVar("M", bound=Message)


class Inbox:
    """Messages of a queue as they come; `until` waits for one."""

    def __init__(self) -> None:
        self.all: list[Message] = []
        #: The ids under which messages of a type came.
        self.ids: dict[type[Message], set[str | None]] = defaultdict(set)
        self._news = asyncio.Condition()

    async def take(self, delivery: AbstractIncomingMessage) -> None:
        await delivery.ack()
        async with self._news:
            message = unpack(delivery.body, delivery.type)
            self.all.append(message)
            self.ids[type(message)].add(delivery.message_id)
            self._news.notify_all()

    async def until(self, model: type[M], wanted: Callable[[M], bool] = lambda _: True, *, nth: int = 1) -> M:
        """Wait for the nth message of `model` for which `wanted` holds."""

        found: list[M] = []
        read = 0

        def enough() -> bool:
            nonlocal read
            found.extend(message for message in self.all[read:] if isinstance(message, model) and wanted(message))
            read = len(self.all)
            return len(found) >= nth

        async with asyncio.timeout(LIMIT), self._news:
            await self._news.wait_for(enough)
            return found[nth - 1]

    def of(self, model: type[M]) -> list[M]:
        return [message for message in self.all if isinstance(message, model)]


async def publish(channel: AbstractChannel, exchange: str, key: str, message: Message, **properties: Any) -> None:
    parcel = pack(message)
    target = await channel.get_exchange(exchange, ensure=False)
    await target.publish(
        aio_pika.Message(
            parcel.body, type=parcel.type, message_id=parcel.message_id, content_type=parcel.content_type, **properties
        ),
        key,
    )


@dataclass
class FakeWorker:
    """A worker's session on the wire, under the worker's own account: it does only what the test says."""

    name: str
    channel: AbstractChannel
    queue: AbstractQueue
    spool: str
    session: str
    offer: Capabilities = OFFER
    inbox: Inbox = field(default_factory=Inbox)
    beats: int = 0
    seqs: dict[str, int] = field(default_factory=dict)

    async def bind(self, *, grants: bool = True) -> None:
        await self.queue.bind(CONTROL, keys.control(self.name, self.session))
        if grants:
            for key in offered_keys(self.offer):
                await self.queue.bind(WORK, keys.grant(key, self.name, self.session))

    async def beat(self, *tokens: str, held: tuple[HeldGrant, ...] = (), **fields: Any) -> None:
        self.beats += 1
        beat = WorkerBeat(
            worker=self.name, session=self.session, spool=self.spool, beat=self.beats, capabilities=self.offer,
            slots=4, tokens=tokens, held=held, **fields,
        )  # fmt: skip
        await publish(self.channel, WORKERS, keys.worker(self.name), beat)

    async def claim(self, *tokens: str) -> None:
        claim = WorkerClaim(worker=self.name, session=self.session, tokens=tokens)
        await publish(self.channel, WORKERS, keys.worker(self.name), claim)

    async def grant_of(self, job: int, *, nth: int = 1) -> Grant:
        return await self.inbox.until(Grant, lambda grant: grant.facts.job == job, nth=nth)

    async def status(self, grant: Grant, state: AttemptState, **fields: Any) -> None:
        seq = self.seqs[grant.grant] = fields.pop("seq", self.seqs.get(grant.grant, 0) + 1)
        status = AttemptStatus(
            grant=grant.grant, job=grant.facts.job, attempt=grant.attempt, worker=self.name,
            session=self.session, seq=seq, state=state, **fields,
        )  # fmt: skip
        await publish(self.channel, STATUS, keys.status(self.name, grant.facts.job, grant.attempt), status)

    async def run(self, grant: Grant) -> None:
        await self.status(grant, AttemptState.RUNNING)

    async def succeed(self, grant: Grant, **fields: Any) -> None:
        tasks = tuple(
            TaskResult(name=task.name, state=TaskState.SUCCESS, exit_status=0) for task in grant.manifest.tasks
        )
        await self.status(grant, AttemptState.ENDED, result=JobStatus.SUCCESS, tasks=tasks, **fields)

    async def close(self) -> None:
        await self.channel.close()


def held(grant: Grant, state: AttemptState = AttemptState.GRANTED, seq: int = 0) -> HeldGrant:
    return HeldGrant(grant=grant.grant, job=grant.facts.job, attempt=grant.attempt, state=state, seq=seq)


def token() -> str:
    return str(uuid4())


def artifact(path: str) -> Artifact:
    return Artifact(path=path, name=path.rsplit("/", 1)[-1], bytes=1, sha256="0" * 64)


@dataclass
class Lab:
    """A vhost with Leveret's shape, a database, and who watches them."""

    vhost: Vhost
    database: Database
    channel: AbstractChannel
    events: Inbox
    notified: Inbox
    replies: Inbox
    _jobs: int = 0

    def config(self, **changes: Any) -> Config:
        """A configuration with short times; a lease long enough not to run out by itself."""
        times: dict[str, Any] = {
            "lease": 20.0, "canary": 0.1, "leader_renew": 0.3, "leader_stale": 2.0, "standby_look": 0.05,
        }  # fmt: skip
        return Config(
            amqp_url=SecretStr(self.vhost.url("dispatcher")),
            database_url=SecretStr(self.database.dsn_for("dispatcher")),
            **(times | changes),
        )

    def environment(self, **changes: Any) -> dict[str, str]:
        """The same for a process of its own."""
        config = self.config(**changes)
        values = {key: getattr(config, key) for key in type(config).model_fields}
        given = {
            key: value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for key, value in values.items()
            if value is not None
        }
        return {f"LEVERET_DISPATCHER_{key.upper()}": value for key, value in given.items()}

    @asynccontextmanager
    async def dispatcher(self, **changes: Any) -> AsyncIterator[None]:
        """A dispatcher in this process, drained at the block's end."""
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(serve(self.config(**changes), stop))
            try:
                yield
            finally:
                stop.set()

    @asynccontextmanager
    async def worker(
        self, name: str = "w1", *, spool: str | None = None, offer: Capabilities = OFFER, grants: bool = True
    ) -> AsyncIterator[FakeWorker]:
        session = token()
        connection = await aio_pika.connect(self.vhost.url(name))
        async with connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(exclusive=True)
            worker = FakeWorker(name, channel, queue, spool or token(), session, offer)
            await worker.bind(grants=grants)
            await queue.consume(worker.inbox.take)
            yield worker

    async def submit(self, **changes: Any) -> int:
        """Hand a job on as intake does; give its id."""
        self._jobs += 1
        await publish(self.channel, JOBS, REQUIREMENT.key, ready_job(self._jobs, **changes))
        return self._jobs

    async def command(self, command: Message, owner: str = "~alice") -> Message:
        """Give a command and wait for the answer."""
        answered = len(self.replies.all)
        word = keys.command_word(command.TYPE)
        await publish(
            self.channel, COMMANDS, keys.command(word, owner), command, reply_to=self.reply_queue, correlation_id="1"
        )
        await self.replies.until(Message, nth=answered + 1)
        return self.replies.all[answered]

    reply_queue: str = ""

    async def job_is(self, job: int, status: JobStatus, *, nth: int = 1, reason: str | None = None) -> JobEvent:
        return await self.events.until(
            JobEvent,
            lambda e: e.facts.job == job and e.status is status and (reason is None or e.reason == reason),
            nth=nth,
        )

    def course(self, job: int) -> list[str]:
        """The statuses told of a job, in the order of their numbers, told once however often they came."""
        told = {e.seq: e for e in self.events.of(NumberedEvent) if e.facts.job == job}
        assert sorted(told) == list(range(1, len(told) + 1)), f"gap in {sorted(told)}"
        return [e.status.value for _, e in sorted(told.items()) if isinstance(e, JobEvent)]


def ready_job(job: int, *, owner: str = "~alice", **changes: Any) -> ReadyJob:
    manifest: dict[str, Any] = {"image": "debian/trixie", "tasks": [{"build": "make"}, {"check": "make check"}]}
    manifest |= changes.pop("manifest", {})
    facts = JobFacts(
        job=job, owner=owner, project="p", submission=f"m{job}", link="abcdefghijklmnopqrstuvwx",
        **{key: changes.pop(key) for key in ("visibility", "note", "group") if key in changes},
    )  # fmt: skip
    return ReadyJob(
        facts=facts, manifest=Manifest.model_validate(manifest),
        **({"requirement": REQUIREMENT, "submitted_at": datetime.now(UTC)} | changes),
    )  # fmt: skip


@asynccontextmanager
async def open_lab(vhost: Vhost, database: Database) -> AsyncIterator[Lab]:
    connection = await aio_pika.connect(vhost.url())
    async with connection:
        channel = await connection.channel()
        lab = Lab(vhost, database, channel, Inbox(), Inbox(), Inbox())
        events = await channel.declare_queue(exclusive=True)
        await events.bind(RECORD, "#")
        await events.consume(lab.events.take)
        notify = await channel.get_queue(NOTIFIER_JOBS, ensure=False)
        await notify.consume(lab.notified.take)
        replies = await channel.declare_queue(exclusive=True)
        lab.reply_queue = replies.name
        await replies.consume(lab.replies.take)
        yield lab
