"""What is old goes, at each owner's age, in steps that a crash may part; then readers find nothing."""

import asyncio
import os
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager

import aiohttp
import pytest
from pydantic import SecretStr

from leveret_logsink.chunks import StreamKey
from leveret_logsink.leftovers import Leftovers
from leveret_logsink.retention import Retention
from leveret_logsink.storage import Storage, StorageAway
from leveret_proto.links import artifact_path, log_path
from leveret_proto.messages import JobStatus, LogHistory, Reason
from leveret_runtime.db import Database
from tests.integration.logsink.stage import LINK, Stage, facts, pieces

BODY = b"".join(b"line %d of an old log\n" % number for number in range(10_000))


async def built(stage: Stage, job: int, owner: str) -> None:
    """A job that ended, with a log and an artifact."""
    about = facts(job, owner=owner)
    await stage.dispatcher.started(about, 1, "w1")
    await stage.w1.log(job, 1, "@setup", b"set up\n")
    await stage.w1.log(job, 1, "build", BODY, size=50_000)
    await stage.w1.artifact(job, 1, 0, "out", pieces(BODY, 100_000), BODY)
    await stage.dispatcher.ended(about, 1, "w1", "build")
    await stage.until(
        """
        select count(*) = 3 and bool_and(state = 'sealed' and compress_at is null and ended_at is not null)
        from stream join job using (job) where job = $1
        """,
        job,
    )


async def age(stage: Stage, days: int, *jobs: int) -> None:
    await stage.until(
        """
        with aged as (update job set ended_at = now() - make_interval(days => $1) where job = any($2) returning 1)
        select count(*) = $3 from aged
        """,
        days, list(jobs), len(jobs),
    )  # fmt: skip


def jobs_with_files(stage: Stage) -> set[str]:
    return {path.relative_to(stage.storage).parts[1] for path in stage.storage.rglob("*") if path.is_file()}


async def test_old_jobs_go_at_their_owners_age(stage: Stage) -> None:
    sink = await stage.logsink()
    for job, owner in ((1, "alice"), (2, "alice"), (3, "bob"), (4, "carol")):
        await built(stage, job, owner)
    await age(stage, 20, 1, 3, 4)
    await age(stage, 5, 2)
    await sink.terminate()
    sink = await stage.logsink(keep_days="10", keep_days_of='{"bob": 30, "carol": null}')
    await stage.until("select count(*) = 0 from removal where not exists (select from job where job.job = 1)")
    await stage.until("select array_agg(job order by job) = array[2, 3, 4]::bigint[] from job")
    while "1" in jobs_with_files(stage):
        await asyncio.sleep(0.02)
    assert jobs_with_files(stage) == {"2", "3", "4"}
    for path in (log_path(1, LINK, 1, "build"), artifact_path(1, LINK, 1, 0, "out")):
        assert (await stage.get(stage.url(sink) + path))[0] == 404
    assert (await stage.get(stage.url(sink) + log_path(2, LINK, 1, "build")))[2] == BODY
    assert await stage.until(
        "select not exists (select from stream where job = 1) and not exists (select from attempt where job = 1)"
    )
    reply = await stage.command("history.alice", LogHistory(job=1))
    assert b"not-found" in reply.body

    # what comes after all, of a worker that was away for long, is stored and belongs to nobody
    await stage.w1.log(1, 1, "build", BODY, size=50_000)
    await stage.until("select contiguous = total from stream where job = 1")
    assert (await stage.get(stage.url(sink) + log_path(1, LINK, 1, "build")))[0] == 404


@pytest.mark.slow
async def test_a_job_that_runs_again_is_kept_until_it_ends_again(stage: Stage) -> None:
    sink = await stage.logsink()
    await built(stage, 1, "alice")
    await age(stage, 20, 1)
    async with database(stage) as opened:
        retention = Retention(opened, Storage(stage.storage), 10, {})
        await stage.dispatcher.tell(facts(1), JobStatus.PENDING, Reason.LOST, attempt=1, worker="w1")
        await stage.until("select ended_at is null from job")
        assert await retention.forget_jobs() == 0
        await stage.dispatcher.ended(facts(1), 2, "w1")
        await stage.until("select ended_at > now() - interval '1 hour' from job")
        assert await retention.forget_jobs() == 0
        await age(stage, 11, 1)
        assert await retention.forget_jobs() == 1
    assert (await stage.get(stage.url(sink) + log_path(1, LINK, 1, "build")))[0] == 404


def database(stage: Stage) -> AbstractAsyncContextManager[Database]:
    """The schema, as logsink opens it."""
    return Database.open(SecretStr(stage.database.dsn_for("logsink")), "logsink")


class Failing(Storage):
    """Removes some of what it is told to, and then the disk goes away."""

    def remove(self, keys: Iterable[StreamKey]) -> None:
        super().remove(list(keys)[:2])
        raise StorageAway("storage: Input/output error")


async def test_a_crash_between_rows_and_files_is_made_good(stage: Stage) -> None:
    sink = await stage.logsink()
    await built(stage, 1, "alice")
    await age(stage, 20, 1)
    async with database(stage) as opened:
        broken = Retention(opened, Failing(stage.storage), 10, {})
        assert await broken.forget_jobs() == 1
        # not a row is left, so nothing is served, with the files still there
        assert jobs_with_files(stage) == {"1"}
        assert (await stage.get(stage.url(sink) + log_path(1, LINK, 1, "build")))[0] == 404
        with pytest.raises(StorageAway):
            await broken.remove_files()
        assert jobs_with_files(stage) == {"1"}
        next_one = Retention(opened, Storage(stage.storage), 10, {})
        assert await next_one.remove_files() == 3
        assert jobs_with_files(stage) == set()
        assert await next_one.remove_files() == 0
        assert await next_one.forget_jobs() == 0


async def test_two_logsinks_remove_the_same_jobs(stage: Stage) -> None:
    await (await stage.logsink()).terminate()
    async with database(stage) as opened:
        async with opened.connection() as on:
            await on.execute(
                """
                insert into job (job, seq, facts, owner, ended_at)
                select n, 1, '{}', 'owner' || n % 7, now() - interval '20 days' from generate_series(1, 300) n;
                insert into stream (kind, job, attempt, worker, label)
                select 'log', n, 1, 'w1', 'task' || t from generate_series(1, 300) n, generate_series(1, 3) t
                """
            )
        both = [Retention(opened, Storage(stage.storage), 10, {}) for _ in range(2)]

        async def remove(one: Retention) -> int:
            count = 0
            while found := await one.forget_jobs():
                count += found
            return count

        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            tasks = [group.create_task(remove(one)) for one in both]
        assert sum(task.result() for task in tasks) <= 300
        await remove(both[0])
        async with opened.connection() as on:
            assert await on.fetchval("select count(*) from job") == 0
            assert await on.fetchval("select count(*) from stream") == 0
            assert await on.fetchval("select count(*) from removal") == 900


async def test_a_reader_in_the_middle_is_cut_off(stage: Stage) -> None:
    """It can't be given the rest, and is not told that it was all."""
    body = os.urandom(8 * 1024 * 1024)
    sink = await stage.logsink()
    await stage.dispatcher.started(facts(1), 1, "w1")
    await stage.w1.artifact(1, 1, 0, "out", pieces(body, 250_000), body)
    await stage.dispatcher.ended(facts(1), 1, "w1")
    await stage.until(
        "select bool_or(state = 'sealed') from stream join job using (job) where kind = 'artifact' and ended_at < now()"
    )
    await age(stage, 20, 1)
    async with (
        database(stage) as opened,
        stage.http.get(stage.url(sink) + artifact_path(1, LINK, 1, 0, "out")) as response,
    ):
        await response.content.readexactly(1000)
        retention = Retention(opened, Storage(stage.storage), 10, {})
        assert await retention.forget_jobs() == 1
        assert await retention.remove_files() >= 1
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_leftovers_go(stage: Stage) -> None:
    """Streams of jobs that nobody spoke of, and files without a row; a live job's stay, shelf after shelf."""
    await stage.logsink()
    await built(stage, 5_001, "alice")
    await stage.w1.log(7, 1, "build", BODY, size=50_000)
    await stage.until("select contiguous = total from stream where job = 7")
    stray = stage.storage / "9/9000/1/w1/build.log"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(BODY)
    async with database(stage) as opened:
        young = Leftovers(opened, Storage(stage.storage), age=3600)
        await restart(stage)
        assert [await young.search_one() for _ in range(5)] == [True, True, True, False, False]
        assert jobs_with_files(stage) == {"7", "5001", "9000"}
        await restart(stage)
        old = Leftovers(opened, Storage(stage.storage), age=-60)
        assert [await old.search_one() for _ in range(5)] == [True, True, True, False, False]
    assert jobs_with_files(stage) == {"5001"}
    assert await stage.until("select array_agg(distinct job) = array[5001]::bigint[] from stream")


async def restart(stage: Stage) -> None:
    """The next round of the search begins now."""
    await stage.until("with due as (update sweep set shelf = -1, at = now() returning 1) select true from due")
