"""A broker and a database server that belong to one test, which may kill, freeze and restart them."""

import asyncio
import base64
import os
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from leveret_embedded import Broker, MissingProgramError, ProgramFailedError, postgresql, rabbitmq
from leveret_embedded.database import DatabaseServer
from leveret_embedded.quorum import registered_name, until_on_disk
from leveret_embedded.server import Server
from leveret_proto.definitions import definitions
from leveret_proto.permissions import SERVICES, Permissions, service
from leveret_runtime.rabbit_password import password_hash
from tests.support.databases import Database, create_database, prepared
from tests.support.processes import descendants

VHOST = "private"
_STARTS = 4
_API_LIMIT = aiohttp.ClientTimeout(total=30)


@dataclass(frozen=True)
class Accounts:
    """The virtual host of a private broker, with Leveret's topology and an account for each role."""

    broker: Broker
    password: str

    def url(self, user: str = "admin") -> str:
        return self.broker.amqp_url(user, None if user == "admin" else self.password, VHOST)

    async def until_on_disk(self, *queues: str) -> None:
        """Wait until a crash of the broker would not forget these quorum queues."""
        await until_on_disk(self.broker.base / "data", [registered_name(VHOST, queue) for queue in queues])

    async def queues(self) -> set[str]:
        """The names of all queues there are, by the management API."""
        login = base64.b64encode(f"admin:{self.broker.admin_password}".encode()).decode()
        headers = {"Authorization": f"Basic {login}"}
        async with aiohttp.ClientSession(headers=headers, timeout=_API_LIMIT) as session:
            async with session.get(f"{self.broker.management_url}/api/queues/{VHOST}") as answer:
                answer.raise_for_status()
                return {queue["name"] for queue in await answer.json()}


@dataclass(frozen=True)
class PrivateServers:
    """Both servers of one test."""

    accounts: Accounts
    server: DatabaseServer
    database: Database
    #: Held while somebody does something to the server.
    broker_busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    server_busy: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def broker(self) -> Broker:
        return self.accounts.broker


@asynccontextmanager
async def private_servers(folder: Path, users: dict[str, Permissions]) -> AsyncIterator[PrivateServers]:
    """Broker and database for the length of the block; `users` are accounts besides those of the central services.

    The test is skipped where this machine has no RabbitMQ or PostgreSQL to start.
    """
    password = secrets.token_hex(16)
    accounts = {name: service(name) for name in SERVICES} | users
    document = definitions(VHOST, {name: (password_hash(password), granted) for name, granted in accounts.items()})
    async with AsyncExitStack() as stack:
        try:
            broker = await stack.enter_async_context(
                rabbitmq(folder / "rabbitmq", definitions=document, management=True)
            )
            server = await stack.enter_async_context(postgresql(folder / "postgresql", fsync=False))
        except MissingProgramError as missing:
            pytest.skip(f"needs servers of its own to kill and freeze: {missing}")
        superuser = await stack.enter_async_context(prepared(server.dsn("postgres")))
        try:
            yield PrivateServers(Accounts(broker, password), server, await create_database(superuser))
        finally:
            await broker.kill()  # its data goes too, and an orderly stop of the management plugin takes seconds


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    """SIGSTOP for the length of the block, to the server and to every process below it."""
    stopped: list[int] = []
    try:
        _signal(server.pid, signal.SIGSTOP, stopped)  # first, so that no more are born while we list them
        for pid in descendants(server.pid):
            _signal(pid, signal.SIGSTOP, stopped)
        yield
    finally:
        for pid in stopped:
            _signal(pid, signal.SIGCONT, [])


def _signal(pid: int, number: signal.Signals, sent: list[int]) -> None:
    """Send a signal and note whom to, if that one is still there: a database's backends come and go."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    sent.append(pid)


async def bring_back(server: Server) -> None:
    """Start a killed server as a service manager would: RabbitMQ 4.0, killed, may fail one boot over a stream queue."""
    for starts_left in reversed(range(_STARTS)):
        try:
            await server.start()
            return
        except ProgramFailedError:
            if not starts_left:
                raise
