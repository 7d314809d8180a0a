"""The whole of Leveret for a test: five service processes with the `process` executor, a client, an observer."""

import asyncio
import base64
import json
import platform
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import aio_pika
import asyncpg

from leveret_client import Client, NoAnswer, NotReached
from leveret_embedded.ports import HOST, reserved_ports
from leveret_proto.permissions import SERVICES, Permissions, operator, submitter, worker
from leveret_proto.topology import EVENTS, RECORD
from tests.support.databases import Database
from tests.support.journal import Journal
from tests.support.services import Service, Services

OWNER = "~tester"
WORKER = "w1"
IMAGE = "test/process"
#: The queue of the journal.
JOURNAL = "test.journal"
LIMIT = 60.0
SIGNING_KEY = base64.b64encode(bytes(range(32))).decode()
SECRETS_KEY = base64.b64encode(bytes(range(1, 33))).decode()
LINK_KEY = base64.b64encode(bytes(range(2, 34))).decode()
#: In the order of starting: what takes work comes last.
NAMES = ("logsink", "notifier", "dispatcher", "intake", "worker")
#: What no test should wait long for: a dead leader, a dead try, the next try.
_SHORT: dict[str, dict[str, object]] = {
    "intake": {"default_arch": platform.machine()},
    "dispatcher": {"leader_renew": 0.3, "leader_stale": 1.5, "standby_look": 0.05, "canary": 0.3, "lease": 20,
                   "secrets_key": SECRETS_KEY},
    "logsink": {"link_key": LINK_KEY},
    "notifier": {
        "signing_key": SIGNING_KEY, "allow_private_addresses": True, "webhook_seconds": 2, "smtp_seconds": 2,
        "claim_margin_seconds": 0.5, "retry_first_seconds": 0.3, "mail_from": "Leveret <leveret@builds.example.org>",
        "smtp_host": HOST, "smtp_port": 9, "smtp_tls": "none",
    },
    "worker": {
        "executor": "process", "unsandboxed": "allow", "slots": 2, "beat_interval": 2, "drain_limit": 0,
    },
}  # fmt: skip


class Accounts(Protocol):
    """A virtual host with an account for each role."""

    def url(self, user: str = "admin") -> str: ...


def roles(*workers: str) -> dict[str, Permissions]:
    """The accounts a system needs besides those of its four central services."""
    return {name: worker(name) for name in workers} | {
        "submitter": submitter((OWNER,)), "operator": operator(),
    }  # fmt: skip


def manifest(*tasks: tuple[str, str], **others: Any) -> str:
    """A manifest for the process executor, as YAML (of which JSON is a part)."""
    listed = [{name: script} for name, script in tasks]
    return json.dumps({"image": IMAGE, "tasks": listed} | others, ensure_ascii=False)


@dataclass
class System:
    """Running services by name. `start` replaces one, so that a test can crash it and bring it back."""

    vhost: Accounts
    database: Database
    services: Services
    port: int
    journal: Journal
    client: Client
    running: dict[str, Service] = field(default_factory=dict)

    @property
    def logs_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def amqp_url(self) -> str:
        """What a submitter is given."""
        return self.vhost.url("submitter")

    def environment(self, name: str, worker: str = WORKER, **changes: Any) -> dict[str, str]:
        """A service's variables; `changes` are configuration keys."""
        own: dict[str, object] = {"amqp_url": self.vhost.url(worker if name == "worker" else name)}
        if name in SERVICES:
            own["database_url"] = self.database.dsn_for(name)
        if name == "worker":
            own |= {"name": worker, "spool": self.services.folder / f"spool-{worker}"}
        if name in ("dispatcher", "logsink"):
            own["logs_url"] = self.logs_url
        if name == "logsink":
            own |= {"storage": self.services.folder / "storage", "host": HOST, "port": self.port}
        chosen = own | _SHORT[name] | changes
        return {f"LEVERET_{name.upper()}_{key.upper()}": str(value) for key, value in chosen.items()}

    async def start(
        self, name: str, *, worker: str = WORKER, failpoint: str | None = None, ready: bool = True, **changes: Any
    ) -> Service:
        """Start a service that does not run. A second worker is known by its own name."""
        module = f"leveret_{name}.main"
        environment = self.environment(name, worker, **changes)
        started = await self.services.start(module, environment, failpoint=failpoint, ready=ready)
        self.running[name if worker == WORKER else worker] = started
        return started

    async def restart(self, name: str, *, failpoint: str | None = None, **changes: Any) -> Service:
        """End a service in order and start it again, to crash at `failpoint` (then without waiting for readiness)."""
        await self.running[name].terminate()
        return await self.start(name, failpoint=failpoint, ready=failpoint is None, **changes)

    async def submit(self, text: str | bytes, *, project: str = "p", **circumstances: Any) -> int:
        """Submit for `OWNER` and give the job's number."""
        return (await self.client.submit(text, project=project, **circumstances)).job

    async def submit_through(self, text: str, message_id: str, *, project: str = "p") -> int:
        """Submit through whatever goes down meanwhile, until there is an answer, and give the job's number.

        It is one job however often it is sent: the same `message_id` is the same job.
        """
        while True:
            try:
                async with Client(self.amqp_url, OWNER, limit=10) as client:
                    return (await client.submit(text, project=project, message_id=message_id)).job
            except (NotReached, NoAnswer):
                await asyncio.sleep(0.2)

    async def rows(self, query: str, *arguments: object) -> list[Any]:
        """Ask the database as its superuser."""
        on = await asyncpg.connect(self.database.dsn, timeout=LIMIT, command_timeout=LIMIT)
        try:
            return list(await on.fetch(query, *arguments))
        finally:
            await on.close()

    async def until_rows(self, query: str, *arguments: object) -> list[Any]:
        """Ask until there is an answer: a table tells nobody that it has changed."""
        async with asyncio.timeout(LIMIT):
            while not (found := await self.rows(query, *arguments)):
                await asyncio.sleep(0.05)
            return found

    def gate(self) -> "Gate":
        """Something for a build to wait at."""
        return Gate(self.services.folder / f"gate-{uuid4().hex}")


@dataclass(frozen=True)
class Gate:
    """A place where a build's task waits until the test opens it."""

    path: Path

    @property
    def script(self) -> str:
        """What a task runs to wait here. It is the build that looks again and again, not the test."""
        return f"set +x; until [ -e {self.path} ]; do sleep 0.05; done; set -x"

    def open(self) -> None:
        self.path.touch()


@asynccontextmanager
async def open_system(
    vhost: Accounts,
    database: Database,
    services: Services,
    *,
    changes: Mapping[str, Mapping[str, Any]] | None = None,
    steady: bool = True,
) -> AsyncIterator[System]:
    """All five services, ready, for the length of the block. `vhost` must hold Leveret's topology and accounts.

    changes: configuration keys by service.
    steady: False where the broker is going to be killed. The system's client is not connected then, and the journal
        hears `leveret.record`: only there events are confirmed, a dying broker may lose the public copies.
    """
    async with AsyncExitStack() as stack:
        (port,) = stack.enter_context(reserved_ports(1))
        await _declare_journal(vhost, EVENTS if steady else RECORD)
        client = Client(vhost.url("submitter"), OWNER, limit=LIMIT)
        if steady:
            await stack.enter_async_context(client)
        system = System(vhost, database, services, port, Journal(), client)
        stop = asyncio.Event()
        observing = await stack.enter_async_context(asyncio.TaskGroup())
        observing.create_task(system.journal.observe(vhost.url(), JOURNAL, stop))
        stack.callback(stop.set)
        try:
            async with asyncio.TaskGroup() as starting:
                for name in NAMES:
                    starting.create_task(system.start(name, **(changes or {}).get(name, {})))
            yield system
        finally:
            # workers first: what they hand back must still find the others
            for name in sorted(system.running, key=lambda name: name in SERVICES):
                await system.running[name].terminate()


async def _declare_journal(vhost: Accounts, exchange: str) -> None:
    """A queue that hears every event, whoever is connected."""
    async with await aio_pika.connect(vhost.url()) as connected:
        channel = await connected.channel()
        queue = await channel.declare_queue(JOURNAL, durable=True, arguments={"x-queue-type": "quorum"})
        await queue.bind(exchange, "#")
