"""What the notifier's tests run against: a mail sink, an HTTP sink, and a notifier process wired to both."""

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aio_pika
import asyncpg
import pytest
from pydantic import SecretStr

from leveret_notifier.signing import Signer
from leveret_proto.envelope import Parcel, pack, unpack_as
from leveret_proto.manifest import Trigger
from leveret_proto.messages import (
    DeliveryEvent,
    EndedGroup,
    EndedJob,
    GroupMember,
    GroupState,
    GroupView,
    JobFacts,
    JobStatus,
    Reason,
    TaskResult,
    TaskState,
)
from leveret_proto.topology import EVENTS, NOTIFY
from leveret_runtime.broker import Publisher, connection
from tests.support.databases import Database
from tests.support.services import Service, Services
from tests.support.sinks import LIMIT, HttpSink, MailSink, http_server, smtp_server
from tests.support.vhosts import Vhost

SEED = base64.b64encode(bytes(range(32))).decode()
PUBLIC_KEY = Signer(SEED).public_key


@pytest.fixture
async def http() -> AsyncIterator[HttpSink]:
    async with http_server() as sink:
        yield sink


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


def ended_group(name: str, *triggers: dict[str, str], state: GroupState = "success") -> EndedGroup:
    members = (GroupMember(job=3, status=JobStatus.SUCCESS), GroupMember(job=4, status=JobStatus.CANCELLED))
    return EndedGroup(
        group=GroupView(owner="ada", group=name, state=state, size=2, jobs=members),
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

    async def end(self, ended: EndedJob | EndedGroup) -> None:
        key = str(ended.facts.job) if isinstance(ended, EndedJob) else ended.group.group
        await self.publisher.send(NOTIFY, key, pack(ended), app="dispatcher")

    async def send_raw(self, parcel: Parcel) -> None:
        await self.publisher.send(NOTIFY, "1", parcel, app="dispatcher")

    async def event(self, status: str) -> DeliveryEvent:
        """Wait for the next event, which must have this status."""
        async with asyncio.timeout(LIMIT):
            event = await self.arrived.get()
        assert event.status == status, event
        return event

    async def deliveries_end(self, count: int) -> None:
        """Wait until so many deliveries have ended: those of a group have no event."""
        async with asyncio.timeout(LIMIT):
            while len(await self.rows("select id from notify.delivery where state <> 'waiting'")) < count:
                await asyncio.sleep(0.05)

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
