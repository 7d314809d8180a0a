"""Proves streams whole, and gives up on those whose end never came: the only place where a stream's state moves.

What is to be done is read from the database each time, so that a crash or a second logsink changes nothing: a stream is
hashed outside of any transaction (what is stored never changes), then its row is locked and looked at once more.
"""

import asyncio
from collections.abc import Callable

import structlog

from leveret_logsink import streams
from leveret_logsink.storage import Digest, Storage
from leveret_logsink.streams import Stream
from leveret_logsink.verdict import Verdict, expected, judge, missing
from leveret_proto import keys
from leveret_proto.base import JobFacts
from leveret_proto.links import log_path
from leveret_proto.messages import LogEvent
from leveret_proto.topology import RECORD
from leveret_runtime.db import Connection, Database
from leveret_runtime.failpoints import failpoint
from leveret_runtime.outbox import next_seq, put
from leveret_runtime.waits import pause

log = structlog.get_logger(__name__)

#: Seconds between looks where nobody wakes us: attempts fall due, another logsink may have stored the last byte.
IDLE = 1.0
#: Streams looked at together, and hashed at the same time.
BATCH = 100
HASHERS = 2

_MISMATCH = "every byte came, but their SHA-256 is not the one the worker sent"


class Proof:
    """Moves streams to `sealed` or `gap`. `told` is called after every commit that has something to tell."""

    def __init__(self, database: Database, storage: Storage, logs_url: str) -> None:
        self._database = database
        self._storage = storage
        self._logs_url = logs_url.rstrip("/")
        self._wake = asyncio.Event()
        self._hashers = asyncio.Semaphore(HASHERS)

    def wake(self) -> None:
        """There may be something to prove."""
        self._wake.set()

    async def run(self, told: Callable[[], None], stop: asyncio.Event) -> None:
        """Prove and judge until `stop` is set."""
        while not stop.is_set():
            self._wake.clear()
            while not stop.is_set() and await self._prove_some(told):
                pass
            while not stop.is_set() and await self._judge_some(told):
                pass
            await pause(IDLE, self._wake, stop)

    async def _prove_some(self, told: Callable[[], None]) -> bool:
        """Prove complete streams of known attempts; say whether there was any."""
        async with self._database.connection() as on:
            rows = await on.fetch(
                f"""
                select {streams.COLUMNS} from stream s join attempt a using (job, attempt, worker)
                where s.contiguous = s.total and s.state <> 'sealed' and not s.mismatch
                order by s.id limit $1
                """,
                BATCH,
            )
        async with asyncio.TaskGroup() as group:
            for row in rows:
                group.create_task(self._prove(streams.of_row(row), told))
        return bool(rows)

    async def _prove(self, stream: Stream, told: Callable[[], None]) -> None:
        assert stream.held.end is not None  # only complete ones are chosen
        async with self._hashers:
            digest = await asyncio.to_thread(self._storage.digest, stream.key, stream.held.end.total)
            async with self._database.transaction() as on:
                locked = await streams.lock_id(on, stream.id)
                if judge(locked.held, locked.state, locked.mismatch, due=False) is not Verdict.PROVE:
                    return  # another logsink was quicker
                if digest.sha256 == stream.held.end.sha256:
                    await self._seal(on, locked, digest)
                else:
                    await on.execute("update stream set mismatch = true where id = $1", stream.id)
                    await self._give_up(on, locked, mismatch=True)
                failpoint("logsink.seal.before-commit")
        failpoint("logsink.seal.between-commit-and-publish")
        told()

    async def _judge_some(self, told: Callable[[], None]) -> bool:
        """Judge one attempt that is due; say whether there was one."""
        async with self._database.connection() as on:
            due = await on.fetchrow(
                "select job, attempt from attempt where judge_at <= now() order by judge_at, job, attempt limit 1"
            )
            if due is None:
                return False
            await self._begin_expected(on, due["job"], due["attempt"])
            async with on.transaction():
                # locked first: whoever begins a log of this attempt now waits, and puts it up for judgement again
                row = await on.fetchrow(
                    """
                    update attempt set judge_at = null
                    where job = $1 and attempt = $2 and judge_at <= now() returning worker
                    """,
                    due["job"], due["attempt"],
                )  # fmt: skip
                if row is None:
                    return True  # another logsink was quicker
                await self._judge(on, due["job"], due["attempt"], row["worker"])
                failpoint("logsink.gap.before-commit")
        failpoint("logsink.gap.between-commit-and-publish")
        told()
        return True

    async def _begin_expected(self, on: Connection, job: int, attempt: int) -> None:
        """Make rows for the logs that the attempt owes and of which nothing came."""
        row = await on.fetchrow(
            "select worker, started, ran from attempt where job = $1 and attempt = $2 and worker is not null",
            job, attempt,
        )  # fmt: skip
        if row is not None:
            await on.execute(
                """
                insert into stream (kind, job, attempt, worker, label)
                select 'log', $1, $2, $3, unnest($4::text[]) on conflict do nothing
                """,
                job, attempt, row["worker"], expected(row["started"], row["ran"], begun=()),
            )  # fmt: skip

    async def _judge(self, on: Connection, job: int, attempt: int, worker: str | None) -> None:
        rows = await on.fetch(
            f"""
            select {streams.COLUMNS} from stream s
            where s.kind = 'log' and s.job = $1 and s.attempt = $2 and s.worker = $3 order by s.id for update
            """,
            job, attempt, worker,
        )  # fmt: skip
        for stream in map(streams.of_row, rows):
            if judge(stream.held, stream.state, stream.mismatch, due=True) is Verdict.GAP:
                await self._give_up(on, stream, mismatch=stream.mismatch)

    async def _seal(self, on: Connection, stream: Stream, digest: Digest) -> None:
        await on.execute("update stream set state = 'sealed', lines = $2 where id = $1", stream.id, digest.lines)
        if stream.key.kind == "log":
            await self._publish(on, stream, "sealed", lines=digest.lines)
        log.info("sealed", **stream.key._asdict(), bytes=stream.held.stored.contiguous)

    async def _give_up(self, on: Connection, stream: Stream, *, mismatch: bool) -> None:
        if stream.state == "gap":
            return
        await on.execute("update stream set state = 'gap' where id = $1", stream.id)
        if stream.key.kind == "log":
            await self._publish(on, stream, "gap", mismatch=mismatch)
        log.warning("gap", **stream.key._asdict(), mismatch=mismatch)

    async def _publish(
        self, on: Connection, stream: Stream, status: str, *, lines: int | None = None, mismatch: bool = False
    ) -> None:
        """Put the stream's event into the outbox, numbered, in the caller's transaction."""
        key, held = stream.key, stream.held
        facts = JobFacts.model_validate_json(await on.fetchval("select facts from job where job = $1", key.job))
        event = LogEvent(
            facts=facts,
            source="logsink",
            seq=await next_seq(on, key.job),
            at=await on.fetchval("select now()"),
            status="sealed" if status == "sealed" else "gap",
            attempt=key.attempt,
            task=key.label,
            bytes=held.stored.contiguous,
            lines=lines,
            sha256=held.end.sha256 if held.end and status == "sealed" else None,
            missing=() if status == "sealed" else missing(held, mismatch),
            detail=None if status == "sealed" else _MISMATCH if mismatch else _why(held.end is None),
            url=self._logs_url + log_path(key.job, facts.link, key.attempt, key.label),
        )
        where = keys.log_event(facts.visibility, facts.owner, key.job, key.label, status)
        await put(on, key.job, RECORD, where, event)


def _why(endless: bool) -> str:
    return "the log's end did not come after the attempt's" if endless else "bytes did not come before the log's end"
