"""The private PostgreSQL: starts, survives a crash with its rows, keeps roles apart, ends completely."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from leveret_embedded import DatabaseServer, StatementFailedError, postgresql
from tests.support.processes import descendants, until_gone


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[DatabaseServer]:
    async with postgresql(tmp_path / "postgresql", fsync=False) as server:
        await server.create_database("leveret")
        yield server


async def test_committed_rows_outlive_a_crash_on_the_same_port(server: DatabaseServer) -> None:
    await server.execute("leveret", ["CREATE TABLE kept (word text)", "INSERT INTO kept VALUES ('before the crash')"])
    family = descendants(server.pid)

    await server.kill()
    await until_gone(family)
    await server.restart()

    connection = await asyncpg.connect(server.dsn("leveret"))
    assert await connection.fetchval("SELECT word FROM kept") == "before the crash"
    await connection.close()


async def test_data_of_an_earlier_run_is_used_again(tmp_path: Path) -> None:
    async with postgresql(tmp_path / "again", fsync=True) as first:
        await first.create_database("leveret")
    async with postgresql(tmp_path / "again", fsync=True) as second:
        await second.create_database("leveret")  # there already: left as it is
        await second.execute("leveret", ["SELECT 1"])


async def test_a_role_enters_its_database_with_its_password_and_reads_no_schema_of_others(
    server: DatabaseServer,
) -> None:
    await server.create_database("other")
    for role in ("intake", "dispatcher"):
        await server.create_role(role, f"'{role}\\", database="leveret")
        await server.create_role(role, f"'{role}\\", database="leveret")  # harmless

    dispatcher = await asyncpg.connect(server.dsn("leveret", "dispatcher", "'dispatcher\\"))
    await dispatcher.execute("CREATE SCHEMA dispatch")
    await dispatcher.execute("CREATE TABLE dispatch.jobs (id bigint)")
    intake = await asyncpg.connect(server.dsn("leveret", "intake", "'intake\\"))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await intake.fetch("SELECT * FROM dispatch.jobs")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(server.dsn("leveret", "intake", "wrong"))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(server.dsn("other", "intake", "'intake\\"))
    await dispatcher.close()
    await intake.close()


async def test_a_refused_statement_is_an_error_in_postgresqls_words(server: DatabaseServer) -> None:
    with pytest.raises(StatementFailedError, match="syntax error"):
        await server.execute("leveret", ["SELEKT 1"])
    with pytest.raises(ValueError, match="plain PostgreSQL name"):
        await server.create_database('x"; DROP DATABASE leveret')


async def test_it_ends_with_sessions_open_and_leaves_no_process_and_no_shared_memory(tmp_path: Path) -> None:
    segments = _shared_memory()
    async with postgresql(tmp_path / "ended", fsync=False) as server:
        family = descendants(server.pid)
        connection = await asyncpg.connect(server.dsn("postgres"))
    await until_gone(family)
    connection.terminate()

    async with postgresql(tmp_path / "ended", fsync=False) as server:
        await server.kill()
    assert _shared_memory() == segments


async def test_cancelling_the_block_ends_the_server(tmp_path: Path) -> None:
    running: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def hold() -> None:
        async with postgresql(tmp_path / "cancelled", fsync=False) as server:
            running.set_result(server.pid)
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(hold())
        family = descendants(await running)
        task.cancel()
    await until_gone(family)


def _shared_memory() -> set[str]:
    """Ids of the System V segments nobody is attached to."""
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return {line.split()[1] for line in lines if line.split()[6] == "0"}
