"""Intake's table: who submitted what under which `message_id`, and the job it became."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from leveret_intake.decide import Accept
from leveret_intake.failpoints import BEFORE_COMMIT
from leveret_proto.ids import message_id as new_message_id
from leveret_runtime.db import Connection, Database
from leveret_runtime.failpoints import failpoint
from leveret_runtime.group_commit import GroupCommit

#: Random bytes in a job's link word.
LINK_BYTES = 24
#: Rows written in one transaction.
MOST_TOGETHER = 100

_COLUMNS = "job, message_id, digest, link, submitted_at, handed_on_at is not null as handed_on"


class UnknownJobs(Exception):
    """A submission depends on jobs that its owner does not have."""

    def __init__(self, jobs: tuple[int, ...]) -> None:
        super().__init__(f"unknown jobs {jobs}")
        self.jobs = jobs


@dataclass(frozen=True, slots=True)
class Stored:
    """A submission's row."""

    job: int
    message_id: str
    digest: bytes
    link: str
    submitted_at: datetime
    #: The broker has its ready job already.
    handed_on: bool
    #: It was there before this delivery.
    known: bool


class Store:
    """The submissions, as one session of one intake sees them. What is asked for at the same time commits together."""

    def __init__(self, database: Database, session: UUID) -> None:
        self._database = database
        self._session = session
        self._recording = GroupCommit(self._record, MOST_TOGETHER)
        self._handing_on = GroupCommit(self._note_handed_on, MOST_TOGETHER)
        self._settling = GroupCommit(self._note_settled, MOST_TOGETHER)

    async def record(self, accepted: Accept, redelivered: bool) -> Stored:
        """Store `accepted`, or find the row it has already: check its digest for a conflict.

        Raises:
            UnknownJobs: it depends on what is no job of its owner; nothing was stored.
            DatabaseAway: not known whether it was stored; ask again.
        """
        outcome = await self._recording.ask((accepted, redelivered))
        if isinstance(outcome, UnknownJobs):
            raise outcome
        return outcome

    async def handed_on(self, job: int) -> None:
        """Note that the broker has the ready job of `job`."""
        await self._handing_on.ask(job)

    async def settled(self, job: int) -> None:
        """Note that the delivery of `job`, which had no `message_id`, was acked: no redelivery can be of it."""
        await self._settling.ask(job)

    async def now(self) -> datetime:
        """Give PostgreSQL's time."""
        async with self._database.connection() as on:
            at: datetime = await on.fetchval("select now()")
        return at

    async def _record(self, asked: Sequence[tuple[Accept, bool]]) -> list[Stored | UnknownJobs]:
        outcomes: dict[int, Stored | UnknownJobs] = {}
        async with self._database.transaction() as on:
            for place, (accepted, redelivered) in enumerate(asked):
                if accepted.submission.depends_on and (unknown := await self._unknown_jobs(on, accepted)):
                    outcomes[place] = UnknownJobs(unknown)
                elif accepted.message_id is None and redelivered and (claimed := await self._claim(on, accepted)):
                    outcomes[place] = claimed
            new = {place: accepted for place, (accepted, _) in enumerate(asked) if place not in outcomes}
            if new:
                outcomes |= await self._insert(on, new)
            failpoint(BEFORE_COMMIT)
        return [outcomes[place] for place in range(len(asked))]

    async def _note_handed_on(self, jobs: Sequence[int]) -> list[None]:
        async with self._database.connection() as on:
            await on.execute("update submission set handed_on_at = now() where job = any($1::bigint[])", jobs)
        return [None] * len(jobs)

    async def _note_settled(self, jobs: Sequence[int]) -> list[None]:
        async with self._database.connection() as on:
            await on.execute("update submission set settled_at = now() where job = any($1::bigint[])", jobs)
        return [None] * len(jobs)

    async def _unknown_jobs(self, on: Connection, accepted: Accept) -> tuple[int, ...]:
        wanted = accepted.submission.depends_on
        rows = await on.fetch(
            "select job from submission where owner = $1 and job = any($2::bigint[])", accepted.owner, wanted
        )
        known = {row["job"] for row in rows}
        return tuple(dict.fromkeys(job for job in wanted if job not in known))

    async def _insert(self, on: Connection, new: Mapping[int, Accept]) -> dict[int, Stored]:
        """Insert those that have no row yet, and find the rows of the others. By place in the batch, as `new` is."""
        names = {place: (one.owner, one.message_id or new_message_id()) for place, one in new.items()}
        # in one order, so that two intakes with the same submissions never wait for each other
        ordered = sorted(new, key=names.__getitem__)
        inserted = await on.fetch(
            f"""
            insert into submission (owner, message_id, own_id, digest, link, session)
            select *, $6 from unnest($1::text[], $2::text[], $3::boolean[], $4::bytea[], $5::text[])
            on conflict (owner, message_id) do nothing returning owner, {_COLUMNS}
            """,
            [names[place][0] for place in ordered],
            [names[place][1] for place in ordered],
            [new[place].message_id is not None for place in ordered],
            [new[place].digest for place in ordered],
            [secrets.token_urlsafe(LINK_BYTES) for _ in ordered],
            self._session,
        )
        fresh = {(row["owner"], row["message_id"]): row for row in inserted}
        found: dict[int, Stored] = {}
        for place in ordered:
            row = fresh.pop(names[place], None)  # of two in one batch under one message_id, one is new
            if row is not None:
                found[place] = _stored(row, known=False)
        known = [place for place in ordered if place not in found]
        return found | (await self._find(on, {place: names[place] for place in known}) if known else {})

    async def _find(self, on: Connection, names: Mapping[int, tuple[str, str]]) -> dict[int, Stored]:
        rows = await on.fetch(
            f"""
            select owner, {_COLUMNS} from submission
            where (owner, message_id) in (select * from unnest($1::text[], $2::text[]))
            """,
            [owner for owner, _ in names.values()],
            [name for _, name in names.values()],
        )
        # rows are never deleted, and the insert has just met these
        found = {(row["owner"], row["message_id"]): _stored(row, known=True) for row in rows}
        return {place: found[name] for place, name in names.items()}

    async def _claim(self, on: Connection, accepted: Accept) -> Stored | None:
        """Take over a row of the same body whose delivery another session left unacked.

        Two equal bodies in flight without a `message_id` have two rows; each redelivery claims one of its own.
        """
        row = await on.fetchrow(
            f"""
            update submission set session = $3 where job = (
                select job from submission
                where owner = $1 and digest = $2 and not own_id and settled_at is null and session <> $3
                order by job limit 1 for update skip locked
            ) returning {_COLUMNS}
            """,
            accepted.owner, accepted.digest, self._session,
        )  # fmt: skip
        return None if row is None else _stored(row, known=True)


def _stored(row: Any, *, known: bool) -> Stored:
    return Stored(
        row["job"], row["message_id"], row["digest"], row["link"], row["submitted_at"], row["handed_on"], known
    )  # fmt: skip
