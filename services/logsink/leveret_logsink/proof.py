"""Proves streams whole, and gives up on those whose end never came: the only place where a stream's state moves.

What is to be done is read from the database each time, so that a crash or a second logsink changes nothing: a stream is
hashed outside of any transaction (what is stored never changes), then its row is locked and looked at once more.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import structlog

from leveret_logsink import streams
from leveret_logsink.metrics import STREAMS_SETTLED
from leveret_logsink.storage import Digest, Storage, StorageAway
from leveret_logsink.streams import Stream
from leveret_logsink.verdict import Verdict, expected, judge, missing, proven
from leveret_proto import keys
from leveret_proto.base import JobFacts
from leveret_proto.links import log_path
from leveret_proto.messages import LogEvent
from leveret_proto.topology import RECORD
from leveret_runtime.db import Connection, Database
from leveret_runtime.failpoints import failpoint
from leveret_runtime.group_commit import GroupCommit
from leveret_runtime.outbox import number, put_all
from leveret_runtime.waits import pause

log = structlog.get_logger(__name__)

#: Seconds between looks where nobody wakes us: attempts fall due, another logsink may have stored the last byte.
IDLE = 1.0
#: Streams looked at together, and hashed at the same time.
BATCH = 100
HASHERS = 2

_MISMATCH = "every byte came, but their SHA-256 is not the one the worker sent"


@dataclass(frozen=True, slots=True)
class Settled:
    """A stream whose row is locked, and what becomes of it: proven whole, or not."""

    stream: Stream
    state: Literal["sealed", "gap"]
    lines: int | None = None
    mismatch: bool = False


class Proof:
    """Moves streams to `sealed` or `gap`. `told` is called after every commit that has something to tell."""

    def __init__(self, database: Database, storage: Storage, logs_url: str) -> None:
        self._database = database
        self._storage = storage
        self._logs_url = logs_url.rstrip("/")
        self._wake = asyncio.Event()
        self._hashers = asyncio.Semaphore(HASHERS)
        self._settling = GroupCommit(self._settle_proven, BATCH)

    def wake(self) -> None:
        """There may be something to prove."""
        self._wake.set()

    async def run(self, told: Callable[[], None], stop: asyncio.Event) -> None:
        """Prove and judge until `stop` is set."""
        while not stop.is_set():
            self._wake.clear()
            while not stop.is_set() and (
                await self._prove_some(told) or await self._pass_proven() or await self._judge_one(told)
            ):
                pass
            await pause(IDLE, self._wake, stop)

    async def _prove_some(self, told: Callable[[], None]) -> bool:
        """Prove complete streams of known attempts; say whether there was any that could be read."""
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
            tasks = [group.create_task(self._prove(streams.of_row(row), told)) for row in rows]
        return any(task.result() for task in tasks)

    async def _prove(self, stream: Stream, told: Callable[[], None]) -> bool:
        """Prove a complete stream; False where it can't be read now."""
        assert stream.held.end is not None  # only complete ones are chosen
        async with self._hashers:
            try:
                digest = await asyncio.to_thread(self._storage.digest, stream.key, stream.held.end.total)
            except StorageAway as away:  # tried again at the next look; the other streams don't wait for it
                log.error("a stream can't be read", **stream.key._asdict(), reason=str(away))
                return False
        await self._settling.ask((stream, digest))
        failpoint("logsink.seal.between-commit-and-publish")
        told()
        return True

    async def _settle_proven(self, hashed: Sequence[tuple[Stream, Digest]]) -> list[None]:
        """Seal streams whose digest is the one that the worker sent.

        Of the others logs get a second chance: what is stored of them is forgotten, and asked for again (resend.py).
        """
        settled: list[Settled] = []
        wrong: list[Stream] = []
        async with self._database.transaction() as on:
            locked = await streams.lock_ids(on, [stream.id for stream, _ in hashed])
            for stream, digest in hashed:
                row = locked.get(stream.id)
                if row is None or judge(row.held, row.state, row.mismatch, due=False) is not Verdict.PROVE:
                    continue  # another logsink was quicker, or retention
                if row.held.end is not None and digest.sha256 == row.held.end.sha256:
                    settled.append(Settled(row, "sealed", digest.lines))
                else:
                    wrong.append(row)
            again = await streams.distrust(on, [row.id for row in wrong])
            settled += [Settled(row, "gap", mismatch=True) for row in wrong if row.id not in again]
            await self._settle(on, settled)
            failpoint("logsink.seal.before-commit")
        return [None] * len(hashed)

    async def _pass_proven(self) -> bool:
        """Be done with attempts that are due and have every log sealed that they owe, as most have; say whether any."""
        async with self._database.transaction() as on:
            # locked first, as in `_judge_one`; only then is it sure which streams there are
            due = await on.fetch(
                """
                select job, attempt, worker, started, ran from attempt where judge_at <= now()
                order by judge_at, job, attempt limit $1 for update skip locked
                """,
                BATCH,
            )
            logs = await streams.log_states(on, [(row["job"], row["attempt"], row["worker"]) for row in due])
            passed = [
                (row["job"], row["attempt"])
                for row in due
                if proven(
                    expected(row["started"], row["ran"]), logs.get((row["job"], row["attempt"], row["worker"]), {})
                )
            ]
            await on.execute(
                """
                update attempt a set judge_at = null from unnest($1::bigint[], $2::integer[]) u (job, attempt)
                where (a.job, a.attempt) = (u.job, u.attempt)
                """,
                [job for job, _ in passed], [attempt for _, attempt in passed],
            )  # fmt: skip
        return bool(passed)

    async def _judge_one(self, told: Callable[[], None]) -> bool:
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
                job, attempt, row["worker"], expected(row["started"], row["ran"]),
            )  # fmt: skip

    async def _judge(self, on: Connection, job: int, attempt: int, worker: str | None) -> None:
        rows = await on.fetch(
            f"""
            select {streams.COLUMNS} from stream s
            where s.kind = 'log' and s.job = $1 and s.attempt = $2 and s.worker = $3 order by s.id for update
            """,
            job, attempt, worker,
        )  # fmt: skip
        lost = [
            Settled(stream, "gap", mismatch=stream.mismatch)
            for stream in map(streams.of_row, rows)
            if judge(stream.held, stream.state, stream.mismatch, due=True) is Verdict.GAP
        ]
        await self._settle(on, lost)

    async def _settle(self, on: Connection, settled: Sequence[Settled]) -> None:
        """Write what becomes of streams, and tell it of logs, where it is news."""
        if not settled:
            return
        await streams.settle(on, [(one.stream.id, one.state, one.lines, one.mismatch) for one in settled])
        news = [one for one in settled if one.state != one.stream.state]
        await self._tell(on, [one for one in news if one.stream.key.kind == "log"])
        for one in news:
            STREAMS_SETTLED.labels(one.stream.key.kind, one.state).inc()
            held = one.stream.held.stored.contiguous
            if one.state == "sealed":
                log.info("sealed", **one.stream.key._asdict(), bytes=held)
            else:
                log.warning("gap", **one.stream.key._asdict(), mismatch=one.mismatch)

    async def _tell(self, on: Connection, logs: Sequence[Settled]) -> None:
        """Put the events of logs into the outbox, numbered, in the caller's transaction."""
        if not logs:
            return
        jobs = Counter(one.stream.key.job for one in logs)
        rows = await on.fetch("select job, facts, now() as at from job where job = any($1::bigint[])", list(jobs))
        known = {row["job"]: (JobFacts.model_validate_json(row["facts"]), row["at"]) for row in rows}
        seqs = await number(on, jobs)
        letters = []
        for one in logs:
            key = one.stream.key
            facts, at = known[key.job]
            event = self._event(one, facts, seqs[key.job], at)
            letters.append(
                (key.job, RECORD, keys.log_event(facts.visibility, facts.owner, key.job, key.label, one.state), event)
            )
            seqs[key.job] += 1
        await put_all(on, letters)

    def _event(self, one: Settled, facts: JobFacts, seq: int, at: datetime) -> LogEvent:
        key, held, sealed = one.stream.key, one.stream.held, one.state == "sealed"
        return LogEvent(
            facts=facts,
            source="logsink",
            seq=seq,
            at=at,
            status=one.state,
            attempt=key.attempt,
            task=key.label,
            bytes=held.stored.contiguous,
            lines=one.lines,
            sha256=held.end.sha256 if held.end and sealed else None,
            missing=() if sealed else missing(held, one.mismatch),
            detail=None if sealed else _why(one),
            url=self._logs_url + log_path(key.job, facts.link, key.attempt, key.label),
        )


def _why(gap: Settled) -> str:
    if gap.mismatch or gap.stream.distrusted:
        return _MISMATCH
    if gap.stream.held.end is None:
        return "the log's end did not come after the attempt's"
    return "bytes did not come before the log's end"
