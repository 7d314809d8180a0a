"""PostgreSQL: a pool bound to one schema, migrations from numbered SQL files, and `DatabaseAway` when it is lost."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import resources
from typing import TYPE_CHECKING

import asyncpg
from pydantic import SecretStr

from leveret_runtime.away import DatabaseAway, told

if TYPE_CHECKING:
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
else:
    Connection = Pool = object

#: Seconds.
CONNECT_LIMIT = 10.0
QUERY_LIMIT = 30.0
CLOSE_LIMIT = 5.0

#: How a connection in use shows that it is lost. No OSError: what a block does with files is its own affair.
_LOST = (
    ConnectionError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that the server ends just as a query begins on it
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.DeadlockDetectedError,  # rolled back whole: done again, it goes through
)
_UNREACHABLE = (OSError, *_LOST)


class MigrationError(Exception):
    """The schema is not one this version can work with."""


class Database:
    """A pool whose connections see `schema` first."""

    def __init__(self, pool: Pool, schema: str) -> None:
        self._pool = pool
        self.schema = schema

    @classmethod
    @asynccontextmanager
    async def open(cls, url: SecretStr, schema: str, *, size: int = 8) -> AsyncIterator["Database"]:
        """Connect for the time of the block. Raises DatabaseAway where that fails."""
        with _away_on(_UNREACHABLE):
            async with asyncio.timeout(CONNECT_LIMIT):
                pool = await asyncpg.create_pool(
                    url.get_secret_value(),
                    min_size=1,
                    max_size=size,
                    command_timeout=QUERY_LIMIT,
                    reset=_leave_as_it_is,
                    server_settings={
                        "search_path": schema,
                        "application_name": f"leveret-{schema}",
                        # a frozen process must not keep its row locks
                        "idle_in_transaction_session_timeout": "30000",
                    },
                )
        try:
            yield cls(pool, schema)
        finally:
            try:
                async with asyncio.timeout(CLOSE_LIMIT):
                    await pool.close()
            except TimeoutError:
                pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection. Raises DatabaseAway when it is lost meanwhile."""
        with _away_on(_UNREACHABLE):
            lent = await self._pool.acquire(timeout=CONNECT_LIMIT)
        with _away_on(_LOST):
            try:
                yield lent
            finally:
                await self._pool.release(lent)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend a connection with a transaction open: committed at the block's end, rolled back where it raises."""
        async with self.connection() as lent, lent.transaction():
            yield lent

    async def migrate(self, package: str) -> None:
        """Bring the schema up to date with `package`'s `migrations/NNNN_name.sql`, once, under an advisory lock.

        Raises:
            MigrationError: the database has been migrated by a newer version.
        """
        steps = _steps("leveret_runtime") + _steps(package)
        async with self.transaction() as on:
            await on.execute("select pg_advisory_xact_lock(hashtext('leveret.migrate.' || $1))", self.schema)
            # a least-privileged role is given its schema and may not make one, not even one that exists
            if not await on.fetchval("select exists (select from pg_namespace where nspname = $1)", self.schema):
                await on.execute(f"create schema {self.schema}")
            await on.execute(
                "create table if not exists migration (name text primary key, done_at timestamptz default now())"
            )
            done = {row["name"] for row in await on.fetch("select name from migration")}
            unknown = done - {name for name, _ in steps}
            if unknown:
                raise MigrationError(
                    f"schema {self.schema} has migrations this version does not know: {sorted(unknown)}"
                )
            for name, sql in steps:
                if name not in done:
                    await on.execute(sql)
                    await on.execute("insert into migration (name) values ($1)", name)


async def _leave_as_it_is(_: object) -> None:
    """Skip the pool's clean-up of what nobody here changes; it is a round trip each time a connection is given back."""


def _steps(package: str) -> list[tuple[str, str]]:
    folder = resources.files(package) / "migrations"
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)
    return [(f"{package}/{entry.name}", entry.read_text()) for entry in files]


@contextmanager
def _away_on(errors: tuple[type[BaseException], ...]) -> Iterator[None]:
    try:
        yield
    except errors as error:
        raise DatabaseAway(told("PostgreSQL", error)) from error
