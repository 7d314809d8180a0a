"""What is read on every wake does not grow with what is stored: rows are counted, with many old ones in the tables."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from leveret_logsink import streams
from leveret_logsink.chunks import StreamKey
from leveret_logsink.compression import Compression
from leveret_logsink.leftovers import Leftovers
from leveret_logsink.proof import Proof
from leveret_logsink.resend import Resending
from leveret_logsink.retention import Retention
from leveret_logsink.storage import Storage
from leveret_logsink.tail import Tail
from leveret_runtime.db import Database
from tests.support import databases

#: Owners of the jobs, each kept at an age of its own.
OWNERS = 50
#: Five streams of each job: four logs that are sealed, told and compressed, and an artifact.
JOBS = f"""
    insert into job (job, seq, facts, owner, ended_at)
    select n, 9, '{{}}', 'owner' || n % {OWNERS}, now() - interval '100 days' from generate_series(1, $1::bigint / 5) n
"""
ATTEMPTS = """
    insert into attempt (job, attempt, seq, worker, started, ran, ended_at)
    select n, 1, 9, 'w' || n % 10, true, '{a,b,c}', now() - interval '100 days'
    from generate_series(1, $1::bigint / 5) n
"""
STREAMS = """
    insert into stream
      (kind, job, attempt, worker, label, stored, contiguous, total, sha256, lines, state, tailed, tail_ended)
    select case t when 5 then 'artifact' else 'log' end, n, 1, 'w' || n % 10, t::text,
           array[0, 5000], 5000, 5000, 'x', 9, 'sealed', 5000, true
    from generate_series(1, $1::bigint / 5) n, generate_series(1, 5) t
"""
#: Rows that were fetched from tables, by index or not, and entries of indexes that were read.
READ = """
    select (select coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0) from pg_stat_user_tables
            where schemaname = 'logsink' and relname in ('job', 'attempt', 'stream'))
         + (select coalesce(sum(idx_tup_read), 0) from pg_stat_user_indexes
            where schemaname = 'logsink' and relname in ('job', 'attempt', 'stream'))
"""


#: Whether connections other than the one that asks are still open.
OTHERS = """
    select count(*) > 1 from pg_stat_activity
    where datname = current_database() and backend_type = 'client backend'
"""

Step = Callable[[Database, Storage], Coroutine[Any, Any, None]]


async def prove(database: Database, storage: Storage) -> None:
    proof = Proof(database, storage, "http://logs")
    assert not await proof._prove_some(lambda: None)
    assert not await proof._pass_proven()
    assert not await proof._judge_one(lambda: None)


async def resend(database: Database, _: Storage) -> None:
    assert not await Resending(database, 2.0, 30.0)._wanting()


async def tail(database: Database, storage: Storage) -> None:
    nobody: Any = None  # there is nothing to publish
    assert not await Tail(database, storage)._publish_some(nobody, nobody)


async def compress(database: Database, storage: Storage) -> None:
    assert not await Compression(database, storage).compress_one(asyncio.Event())


async def store(database: Database, _: Storage) -> None:
    keys = {StreamKey("log", job, 1, "w1", "new"): None for job in range(11, 100_011, 10_000)}
    async with database.connection() as on:
        await streams.begin(on, keys, 30.0)
        async with on.transaction():
            assert len(await streams.lock(on, keys)) == len(keys)


async def retain(database: Database, storage: Storage) -> None:
    """Half of the owners keep theirs for ever, and have the oldest; nobody's are old enough."""
    owners = {f"owner{number}": 200.0 if number % 2 else None for number in range(OWNERS)}
    retention = Retention(database, storage, 200.0, owners)
    assert await retention.forget_jobs() == 0
    assert await retention.remove_files() == 0


async def search(database: Database, storage: Storage) -> None:
    assert await Leftovers(database, storage).search_one()


#: What is done on every wake, for every batch, and in every background step; and the rows that it may read.
STEPS: list[tuple[Step, int]] = [
    (prove, 50), (resend, 50), (tail, 50), (compress, 50), (store, 500), (retain, 10 * OWNERS),
    # a shelf of a thousand jobs, their streams twice, each by index and then by row
    (search, 25_000),
]  # fmt: skip


@pytest.mark.parametrize("count", [50_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
async def test_a_wake_reads_no_more_with_many_old_streams(
    database: databases.Database, tmp_path: Path, count: int
) -> None:
    url = SecretStr(database.dsn_for("logsink"))
    async with Database.open(url, "logsink") as opened:
        await opened.migrate("leveret_logsink")
    admin = await asyncpg.connect(database.dsn, server_settings={"search_path": "logsink"})
    try:
        for rows in (JOBS, ATTEMPTS, STREAMS):
            await admin.execute(rows, count)
        await admin.execute("analyze")
        await admin.execute("select pg_stat_force_next_flush()")
        read: dict[str, int] = {}
        for step, _ in STEPS:
            before = await admin.fetchval(READ)
            # a connection reports what it read when it closes
            async with Database.open(url, "logsink") as opened:
                await step(opened, Storage(tmp_path))
            async with asyncio.timeout(20):
                while await admin.fetchval(OTHERS):
                    await asyncio.sleep(0.02)
            read[step.__name__] = int(await admin.fetchval(READ) - before)
    finally:
        await admin.close()
    assert read["search"] > 5_000, "reading is not counted"
    assert {step.__name__: read[step.__name__] for step, most in STEPS if read[step.__name__] > most} == {}
