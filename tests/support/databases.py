"""A database per test on the session's server, with a role for each service."""

import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import asyncpg

from leveret_embedded import provisioning

#: The roles that `Database.dsn_for` knows, one for each service that owns a schema.
ROLES = ("intake", "dispatcher", "logsink", "notifier")
_LIMIT = 30.0


@dataclass(frozen=True)
class Database:
    """A test's own database. `dsn` is the superuser's."""

    dsn: str
    name: str

    def dsn_for(self, role: str) -> str:
        """DSN of a service's role: it may enter this database and make its own schema in it."""
        if role not in ROLES:
            raise ValueError(f"no role {role!r} in tests: there are {', '.join(ROLES)}")
        return _dsn(self.dsn, self.name, role)


@asynccontextmanager
async def prepared(server: str) -> AsyncIterator[str]:
    """`server`, a superuser's DSN, with the services' roles made there. They stay: it is a server for tests alone."""
    connection = await asyncpg.connect(server, timeout=_LIMIT, command_timeout=_LIMIT)
    try:
        for role in ROLES:
            if not await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", role):
                await connection.execute(provisioning.create_role(role))
            await connection.execute(provisioning.set_password(role, _password(server, role)))
    finally:
        await connection.close()
    yield server


async def create_database(server: str) -> Database:
    """A new database. `server` is a superuser's DSN; the roles must be there."""
    name = f"test_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(server, timeout=_LIMIT, command_timeout=_LIMIT)
    try:
        for statement in provisioning.create_database(name):
            await connection.execute(statement)
        for role in ROLES:
            await connection.execute(provisioning.admit(role, name))
    finally:
        await connection.close()
    return Database(_dsn(server, name), name)


@asynccontextmanager
async def new_database(server: str) -> AsyncIterator[Database]:
    """A database for the length of the block. `server` is a superuser's DSN; the roles must be there."""
    database = await create_database(server)
    try:
        yield database
    finally:
        connection = await asyncpg.connect(server, timeout=_LIMIT, command_timeout=_LIMIT)
        try:
            await connection.execute(f"DROP DATABASE {provisioning.identifier(database.name)} WITH (FORCE)")
        finally:
            await connection.close()


def _password(server: str, role: str) -> str:
    return hashlib.sha256(f"{urlsplit(server).password}/{role}".encode()).hexdigest()[:32]


def _dsn(server: str, database: str, role: str | None = None) -> str:
    parts = urlsplit(server)
    account, _, address = parts.netloc.rpartition("@")
    if role is not None:
        account = f"{role}:{_password(server, role)}"
    return parts._replace(netloc=f"{account}@{address}", path=f"/{quote(database, safe='')}").geturl()
