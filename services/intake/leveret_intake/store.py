"""Intake's table: who submitted what under which `message_id`, and the job it became."""

import secrets
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from leveret_intake.decide import Accept
from leveret_intake.failpoints import BEFORE_COMMIT
from leveret_proto.ids import message_id as new_message_id
from leveret_runtime.db import Connection, Database
from leveret_runtime.failpoints import failpoint

#: Random bytes in a job's link word.
LINK_BYTES = 24

_COLUMNS = "job, message_id, digest, link, submitted_at, handed_on_at is not null as handed_on"


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
    """The submissions, as one session of one intake sees them."""

    def __init__(self, database: Database, session: UUID) -> None:
        self._database = database
        self._session = session

    async def record(self, accepted: Accept, redelivered: bool) -> Stored:
        """Store `accepted` in one transaction, or find the row it has already: check its digest for a conflict.

        Raises:
            DatabaseAway: not known whether it was stored; ask again.
        """
        async with self._database.transaction() as on:
            stored = None
            if accepted.message_id is None and redelivered:
                stored = await self._claim(on, accepted)
            if stored is None:
                stored = await self._insert(on, accepted)
            if stored is None:
                stored = await self._find(on, accepted)
            failpoint(BEFORE_COMMIT)
        return stored

    async def handed_on(self, job: int) -> None:
        """Note that the broker has the ready job of `job`."""
        async with self._database.connection() as on:
            await on.execute("update submission set handed_on_at = now() where job = $1", job)

    async def settled(self, job: int) -> None:
        """Note that the delivery of `job`, which had no `message_id`, was acked: no redelivery can be of it."""
        async with self._database.connection() as on:
            await on.execute("update submission set settled_at = now() where job = $1", job)

    async def now(self) -> datetime:
        """Give PostgreSQL's time."""
        async with self._database.connection() as on:
            at: datetime = await on.fetchval("select now()")
        return at

    async def _insert(self, on: Connection, accepted: Accept) -> Stored | None:
        row = await on.fetchrow(
            f"""
            insert into submission (owner, message_id, own_id, digest, link, session) values ($1, $2, $3, $4, $5, $6)
            on conflict (owner, message_id) do nothing returning {_COLUMNS}
            """,
            accepted.owner,
            accepted.message_id or new_message_id(),
            accepted.message_id is not None,
            accepted.digest,
            secrets.token_urlsafe(LINK_BYTES),
            self._session,
        )
        return None if row is None else Stored(**row, known=False)

    async def _find(self, on: Connection, accepted: Accept) -> Stored:
        row = await on.fetchrow(
            f"select {_COLUMNS} from submission where owner = $1 and message_id = $2",
            accepted.owner, accepted.message_id,
        )  # fmt: skip
        assert row is not None  # rows are never deleted, and the insert has just met it
        return Stored(**row, known=True)

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
        return None if row is None else Stored(**row, known=True)
