"""What the notifier's tests run against: a mail sink, an HTTP sink, and a notifier process wired to both."""

import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import aio_pika
import asyncpg
import pytest
from aiohttp import web
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from pydantic import SecretStr

from leveret_notifier.signing import Signer
from leveret_proto.envelope import Parcel, pack, unpack_as
from leveret_proto.manifest import Trigger
from leveret_proto.messages import DeliveryEvent, EndedJob, JobFacts, JobStatus, Reason, TaskResult, TaskState
from leveret_proto.topology import EVENTS, NOTIFY
from leveret_runtime.broker import Publisher, connection
from tests.support.databases import Database
from tests.support.services import Service, Services
from tests.support.vhosts import Vhost

SEED = base64.b64encode(bytes(range(32))).decode()
PUBLIC_KEY = Signer(SEED).public_key
LIMIT = 30.0


@dataclass
class Post:
    """A request the HTTP sink got."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def delivery(self) -> str:
        return self.headers["X-Leveret-Delivery"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class HttpSink:
    """Answers with `statuses` in turn, then with 200 for ever."""

    port: int = 0
    statuses: list[int] = field(default_factory=list)
    posts: list[Post] = field(default_factory=list)
    arrived: asyncio.Queue[Post] = field(default_factory=asyncio.Queue)

    def url(self, path: str = "/hook", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def next(self) -> Post:
        async with asyncio.timeout(LIMIT):
            return await self.arrived.get()

    async def answer(self, request: web.Request) -> web.Response:
        post = Post(request.path, request.headers, await request.read())
        self.posts.append(post)
        self.arrived.put_nowait(post)
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200, text="thank you")


@pytest.fixture
async def http() -> AsyncIterator[HttpSink]:
    sink = HttpSink()
    app = web.Application()
    app.router.add_post("/{path:.*}", sink.answer)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        sink.port = runner.addresses[0][1]
        yield sink
    finally:
        await runner.cleanup()


@dataclass
class Mail:
    """A mail the SMTP sink took."""

    sender: str
    recipients: list[str]
    message: EmailMessage
    encrypted: bool


@dataclass
class MailSink:
    """An SMTP server. `replies` are given to RCPT of an address instead of 250, one after the other."""

    port: int = 0
    replies: dict[str, list[str]] = field(default_factory=dict)
    mails: list[Mail] = field(default_factory=list)
    arrived: asyncio.Queue[Mail] = field(default_factory=asyncio.Queue)

    async def next(self) -> Mail:
        async with asyncio.timeout(LIMIT):
            return await self.arrived.get()

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.replies.get(address):
            return self.replies[address].pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        read = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(read, EmailMessage)
        mail = Mail(envelope.mail_from or "", list(envelope.rcpt_tos), read, session.ssl is not None)
        self.mails.append(mail)
        self.arrived.put_nowait(mail)
        return "250 taken"


@contextlib.asynccontextmanager
async def smtp_server(
    tls: ssl.SSLContext | None = None, login: tuple[str, str] | None = None
) -> AsyncIterator[MailSink]:
    """An SMTP sink on loopback; with `tls` it wants STARTTLS, with `login` that name and password."""
    sink = MailSink()

    def authenticate(*args: Any) -> AuthResult:
        given = args[4]
        good = isinstance(given, LoginPassword) and login is not None
        # not handled: the server itself is to say 535
        return AuthResult(success=good and (given.login.decode(), given.password.decode()) == login, handled=False)

    def protocol() -> SMTP:
        secured: dict[str, Any] = {"tls_context": tls, "require_starttls": True} if tls else {}
        if login:
            secured |= {"authenticator": authenticate, "auth_required": True}
        return SMTP(sink, hostname="sink.test", loop=asyncio.get_running_loop(), **secured)

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    sink.port = server.sockets[0].getsockname()[1]
    try:
        yield sink
    finally:
        server.close()
        await server.wait_closed()


@pytest.fixture
async def smtp() -> AsyncIterator[MailSink]:
    async with smtp_server() as sink:
        yield sink


def ended_job(number: int, *triggers: dict[str, str], status: JobStatus = JobStatus.SUCCESS) -> EndedJob:
    return EndedJob(
        facts=JobFacts(job=number, owner="ada", project="engine", submission=f"s-{number}", link="abcdefghijklmnop"),
        status=status,
        reason=Reason.COMPLETED if status is JobStatus.SUCCESS else Reason.TASK_FAILED,
        worker="mill-1",
        tasks=(TaskResult(name="build", state=TaskState.SUCCESS, exit_status=0, log_url="http://logs/build"),),
        setup_log_url="http://logs/setup",
        triggers=tuple(Trigger.model_validate({"condition": "always"} | trigger) for trigger in triggers),
        ended_at=datetime(2026, 1, 2, tzinfo=UTC),
    )


@dataclass
class Bench:
    """A provisioned broker and database with the sinks, and the notifier processes started on them."""

    vhost: Vhost
    database: Database
    services: Services
    http: HttpSink
    smtp: MailSink
    publisher: Publisher
    events: list[DeliveryEvent] = field(default_factory=list)
    #: Events by the copies' message_id: the outbox may send one twice.
    seen: set[str] = field(default_factory=set)
    arrived: asyncio.Queue[DeliveryEvent] = field(default_factory=asyncio.Queue)

    async def notifier(self, *, failpoint: str | None = None, ready: bool = True, **config: object) -> Service:
        """Start a notifier whose first delay and claims are short."""
        chosen = {
            "amqp_url": self.vhost.url("notifier"),
            "database_url": self.database.dsn_for("notifier"),
            "signing_key": SEED,
            "allow_private_addresses": True,
            "retry_first_seconds": 0.2,
            "webhook_seconds": 2,
            "smtp_seconds": 2,
            "claim_margin_seconds": 0.5,
            "smtp_host": "127.0.0.1",
            "smtp_port": self.smtp.port,
            "smtp_tls": "none",
            "mail_from": "Leveret <leveret@builds.example.org>",
        } | config
        environment = {f"LEVERET_NOTIFIER_{key.upper()}": str(value) for key, value in chosen.items()}
        return await self.services.start("leveret_notifier.main", environment, failpoint=failpoint, ready=ready)

    async def end(self, job: EndedJob) -> None:
        await self.publisher.send(NOTIFY, str(job.facts.job), pack(job), app="dispatcher")

    async def send_raw(self, parcel: Parcel) -> None:
        await self.publisher.send(NOTIFY, "1", parcel, app="dispatcher")

    async def event(self, status: str) -> DeliveryEvent:
        """Wait for the next event, which must have this status."""
        async with asyncio.timeout(LIMIT):
            event = await self.arrived.get()
        assert event.status == status, event
        return event

    async def rows(self, query: str) -> list[Any]:
        connected = await asyncpg.connect(self.database.dsn, timeout=LIMIT, command_timeout=LIMIT)
        try:
            return list(await connected.fetch(query))
        finally:
            await connected.close()

    async def on_event(self, message: aio_pika.abc.AbstractIncomingMessage) -> None:
        event = unpack_as(DeliveryEvent, message.body, message.type)
        facts = event.facts
        assert message.routing_key == f"delivery.{facts.visibility}.{facts.owner}.{facts.job}.{event.status}"
        if message.message_id not in self.seen:
            self.seen.add(message.message_id or "")
            self.events.append(event)
            self.arrived.put_nowait(event)


@pytest.fixture
async def bench(
    vhost: Vhost, database: Database, services: Services, http: HttpSink, smtp: MailSink
) -> AsyncIterator[Bench]:
    await vhost.provision()
    async with connection(SecretStr(vhost.url()), "test") as connected:
        made = Bench(vhost, database, services, http, smtp, await Publisher.open(connected))
        channel = await connected.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(EVENTS, "delivery.#")
        await queue.consume(made.on_event, no_ack=True)
        yield made
