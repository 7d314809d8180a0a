"""Schemas and connections with a real PostgreSQL."""

import asyncio
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr

from leveret_runtime.away import DatabaseAway
from leveret_runtime.db import Database, MigrationError
from tests.support import databases

LIMIT = 30.0
Package = Callable[..., str]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    """Makes the package `mill` with these migrations, or gives it more."""
    folder = tmp_path / "mill" / "migrations"
    folder.mkdir(parents=True)
    (tmp_path / "mill" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    def make(**steps: str) -> str:
        for name, sql in steps.items():
            (folder / f"{name[1:]}.sql").write_text(sql)
        importlib.invalidate_caches()
        return "mill"

    yield make
    sys.modules.pop("mill", None)


def url(database: databases.Database, role: str = "notifier") -> SecretStr:
    return SecretStr(database.dsn_for(role))


async def tables(on: Database) -> set[str]:
    async with on.connection() as lent:
        rows = await lent.fetch("select tablename from pg_tables where schemaname = $1", on.schema)
    return {row["tablename"] for row in rows}


async def test_many_at_once_migrate_once(database: databases.Database, package: Package) -> None:
    mill = package(_0001_first="create table wheel (id integer); insert into wheel values (1);")

    async def start() -> None:
        async with Database.open(url(database), "notify", size=1) as opened:
            await opened.migrate(mill)

    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(start())
    async with Database.open(url(database), "notify") as opened:
        assert await tables(opened) == {"wheel", "outbox", "event_number", "migration"}
        async with opened.connection() as lent:
            assert await lent.fetchval("select count(*) from wheel") == 1
            assert await lent.fetchval("select count(*) from migration where name like 'mill/%'") == 1


async def test_only_new_steps_are_taken(database: databases.Database, package: Package) -> None:
    async with Database.open(url(database), "notify") as opened:
        await opened.migrate(package(_0001_first="create table wheel (id integer)"))
        await opened.migrate(package(_0002_second="alter table wheel add column teeth integer"))
        async with opened.connection() as lent:
            names = [row["name"] for row in await lent.fetch("select name from migration order by done_at, name")]
    assert [name for name in names if name.startswith("mill/")] == ["mill/0001_first.sql", "mill/0002_second.sql"]


async def test_a_newer_schema_is_refused(database: databases.Database, package: Package, tmp_path: Path) -> None:
    async with Database.open(url(database), "notify") as opened:
        mill = package(_0001_first="create table wheel (id integer)", _0002_second="create table sluice (id integer)")
        await opened.migrate(mill)
        (tmp_path / "mill" / "migrations" / "0002_second.sql").unlink()
        with pytest.raises(MigrationError, match=r"schema notify .*mill/0002_second\.sql"):
            await opened.migrate(mill)


async def test_a_step_that_fails_leaves_nothing(database: databases.Database, package: Package) -> None:
    async with Database.open(url(database), "notify") as opened:
        with pytest.raises(asyncpg.UndefinedTableError):
            await opened.migrate(package(_0001_first="create table wheel (id integer)", _0002_bad="drop table none"))
        assert await tables(opened) == set()


async def test_a_role_that_may_make_no_schema_uses_the_one_it_was_given(
    database: databases.Database, package: Package
) -> None:
    admin = await asyncpg.connect(database.dsn)
    try:
        await admin.execute(f'revoke create on database "{database.name}" from notifier')
        await admin.execute("create schema notify authorization notifier")
    finally:
        await admin.close()
    async with Database.open(url(database), "notify") as opened:
        await opened.migrate(package(_0001_first="create table wheel (id integer)"))
        assert "wheel" in await tables(opened)


async def test_one_service_can_not_read_anothers_schema(database: databases.Database, package: Package) -> None:
    async with (
        Database.open(url(database), "notify") as ours,
        Database.open(url(database, "intake"), "intake") as theirs,
    ):
        await ours.migrate(package(_0001_first="create table wheel (id integer)"))
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with theirs.connection() as lent:
                await lent.fetch("select * from notify.wheel")


async def test_a_transaction_that_raises_changes_nothing(schema: Database) -> None:
    async def write() -> None:
        async with schema.transaction() as on:
            await on.execute("insert into event_number values (1, 1)")
            raise LookupError

    with pytest.raises(LookupError):
        await write()
    async with schema.connection() as on:
        assert await on.fetchval("select count(*) from event_number") == 0


async def test_a_fault_of_the_block_is_not_blamed_on_the_database(schema: Database, tmp_path: Path) -> None:
    """Else the service would wait for PostgreSQL for ever because a file is missing."""

    async def read() -> None:
        async with schema.transaction():
            (tmp_path / "none").read_text()

    with pytest.raises(FileNotFoundError):
        await read()
    async with asyncio.timeout(LIMIT):
        for _ in range(20):  # more than the pool holds: each connection was given back
            with pytest.raises(FileNotFoundError):
                await read()


async def test_nobody_listening_is_the_database_away() -> None:
    with pytest.raises(DatabaseAway, match="PostgreSQL: "):
        async with Database.open(SecretStr("postgresql://a:b@127.0.0.1:1/c"), "notify"):
            pass


async def test_a_connection_ended_in_the_middle_is_the_database_away_and_the_next_one_works(
    schema: Database, database: databases.Database
) -> None:
    admin = await asyncpg.connect(database.dsn)

    async def write() -> None:
        async with schema.transaction() as on:
            pid = await on.fetchval("select pg_backend_pid()")
            await admin.fetchval("select pg_terminate_backend($1, 10000)", pid)
            await on.execute("insert into event_number values (1, 1)")

    try:
        with pytest.raises(DatabaseAway):
            await write()
    finally:
        await admin.close()
    async with schema.transaction() as on:
        assert await on.fetchval("select count(*) from event_number") == 0
