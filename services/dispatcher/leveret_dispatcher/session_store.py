"""Sessions in the database: the live ones, for the next leader; those that ended, to know them when they come back."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from leveret_dispatcher.matching import Session
from leveret_proto.capability import Capabilities

if TYPE_CHECKING:
    from leveret_runtime.db import Connection

EndedAs = Literal["lost", "replaced", "closed"]


@dataclass(frozen=True, slots=True)
class PastSession:
    """How a session that lives no more had ended."""

    worker: str
    ended_as: EndedAs


async def write(on: "Connection", session: Session) -> None:
    """Write a session that lives, new, changed or back."""
    await on.execute(
        """
        insert into session (id, worker, spool, offer, slots, draining, public_key) values ($1, $2, $3, $4, $5, $6, $7)
        on conflict (id) do update set offer = excluded.offer, slots = excluded.slots,
            draining = excluded.draining, public_key = excluded.public_key, ended_at = null, ended_as = null
        """,
        session.id, session.worker, session.spool, session.offer.model_dump_json(), session.slots, session.draining,
        session.public_key,
    )  # fmt: skip


async def end(on: "Connection", session: str, ended_as: EndedAs) -> None:
    """Write how a session ended; those that ended a day ago are forgotten."""
    await on.execute("update session set ended_at = now(), ended_as = $2 where id = $1", session, ended_as)
    await on.execute("delete from session where ended_at < now() - interval '1 day'")


async def live(on: "Connection") -> list[Session]:
    """Read the sessions that lived when they were last heard of."""
    return [_session(row) for row in await on.fetch("select * from session where ended_at is null")]


async def since(on: "Connection", sessions: Iterable[str]) -> dict[str, datetime]:
    """Read when each of `sessions` joined."""
    rows = await on.fetch("select id, since from session where id = any($1::uuid[])", list(sessions))
    return {str(row["id"]): row["since"] for row in rows}


async def heard_of(on: "Connection", worker: str) -> bool:
    """Whether there is a session of `worker`, or was one that is not forgotten."""
    known: bool = await on.fetchval("select exists (select from session where worker = $1)", worker)
    return known


async def past(on: "Connection", session: str) -> PastSession | None:
    """Find a session that has ended."""
    row = await on.fetchrow("select worker, ended_as from session where id = $1 and ended_at is not null", session)
    return None if row is None else PastSession(row["worker"], row["ended_as"])


def _session(row: Any) -> Session:
    offer = Capabilities.model_validate_json(row["offer"])
    return Session(
        row["worker"], str(row["id"]), str(row["spool"]), offer, row["slots"], row["draining"], row["public_key"]
    )
