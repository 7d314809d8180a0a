"""Attempts that are due while something of theirs is still on its way."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from leveret_logsink.proof import Proof
from leveret_logsink.storage import Storage
from leveret_proto.messages import SETUP_LOG
from leveret_runtime.db import Database
from tests.support import databases

LIMIT = 20.0
#: A job whose attempt is over, and its setup's log, which is sealed.
PROVEN = f"""
    insert into job values (1, 1, '{{}}');
    insert into attempt (job, attempt, seq, worker, started, ran, ended_at, judge_at)
    values (1, 1, 1, 'w1', true, '{{}}', now(), now());
    insert into stream (kind, job, attempt, worker, label, state) values ('log', 1, 1, 'w1', '{SETUP_LOG}', 'sealed')
"""
#: As `streams.begin` does for a log that comes late.
LATE = """
    insert into stream (kind, job, attempt, worker, label) values ('log', 1, 1, 'w1', 'late');
    update attempt set judge_at = coalesce(judge_at, now())
"""


@pytest.fixture
async def schema(database: databases.Database) -> AsyncIterator[Database]:
    async with Database.open(SecretStr(database.dsn_for("logsink")), "logsink") as opened:
        await opened.migrate("leveret_logsink")
        async with opened.connection() as on:
            await on.execute(PROVEN)
        yield opened


async def due(schema: Database) -> bool:
    async with schema.connection() as on:
        found: bool = await on.fetchval("select judge_at is not null from attempt")
    return found


async def test_an_attempt_whose_logs_are_all_sealed_is_passed(schema: Database, tmp_path: Path) -> None:
    assert await Proof(schema, Storage(tmp_path), "http://logs")._pass_proven()
    assert not await due(schema)


async def test_a_log_that_begins_while_its_attempt_is_passed_keeps_it_due(schema: Database, tmp_path: Path) -> None:
    proof = Proof(schema, Storage(tmp_path), "http://logs")
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        async with schema.transaction() as on:
            await on.execute(LATE)
            passing = group.create_task(proof._pass_proven())
            await asyncio.wait({passing}, timeout=0.5)  # it neither waits for the log nor passes it over
        assert not await passing
    assert not await proof._pass_proven()
    assert await due(schema)
