"""The table of secrets: each function is one statement inside the caller's transaction. Values are encrypted here."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from leveret_dispatcher.secret_rules import uuid_of
from leveret_dispatcher.store import secrets_allowed, storable
from leveret_proto.base import JobFacts
from leveret_proto.manifest import Manifest
from leveret_proto.messages import SecretKind, SecretView
from leveret_proto.words import escape

if TYPE_CHECKING:
    from leveret_runtime.db import Connection


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A secret about to be kept. `locked`: its encrypted value."""

    uuid: str
    owner: str
    kind: SecretKind
    name: str | None
    path: str | None
    mode: int | None
    locked: bytes


@dataclass(frozen=True, slots=True)
class KeptSecret(NewSecret):
    """A secret as its row has it."""

    added_at: datetime

    def view(self) -> SecretView:
        """Give what its owner may see of it."""
        return SecretView(
            uuid=self.uuid, kind=self.kind, name=self.name, path=self.path, mode=self.mode, added_at=self.added_at
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """The secrets that a job names, by name or UUID; none where its submission switched them off."""

    job: int
    owner: str
    names: tuple[str, ...]


async def insert(on: "Connection", secret: NewSecret, added_by: str) -> KeptSecret | None:
    """Insert a secret; None where its owner has one of that name."""
    row = await on.fetchrow(
        """
        insert into secret (id, owner, kind, name, path, mode, value, added_by) values ($1, $2, $3, $4, $5, $6, $7, $8)
        on conflict do nothing returning *
        """,
        secret.uuid, escape(secret.owner), secret.kind, secret.name, secret.path, secret.mode, secret.locked,
        storable(added_by),
    )  # fmt: skip
    return None if row is None else _secret(row, secret.owner)


async def added_by(on: "Connection", owner: str, message_id: str) -> KeptSecret | None:
    """Find the secret that a command of `owner` has added already."""
    row = await on.fetchrow(
        "select * from secret where owner = $1 and added_by = $2", escape(owner), storable(message_id)
    )
    return None if row is None else _secret(row, owner)


async def of_owner(on: "Connection", owner: str) -> list[KeptSecret]:
    """Read an owner's secrets, oldest first."""
    rows = await on.fetch("select * from secret where owner = $1 order by added_at, id", escape(owner))
    return [_secret(row, owner) for row in rows]


async def delete(on: "Connection", owner: str, name: str) -> KeptSecret | None:
    """Delete the owner's secret of that name or UUID, and give it; None where there is none."""
    row = await on.fetchrow(
        "delete from secret where owner = $1 and (name = $2 or id = $3) returning *", escape(owner), name, uuid_of(name)
    )
    return None if row is None else _secret(row, owner)


async def find(on: "Connection", wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], KeptSecret]:
    """Find secrets by (owner, name or UUID); those that are not there are left out."""
    pairs = sorted(set(wanted))
    rows = await on.fetch(
        """
        select w.place, s.* from unnest($1::integer[], $2::text[], $3::text[], $4::uuid[]) w (place, owner, name, id)
        join secret s on s.owner = w.owner and (s.name = w.name or s.id = w.id)
        """,
        list(range(len(pairs))),
        [escape(owner) for owner, _ in pairs],
        [storable(name) for _, name in pairs],
        [uuid_of(name) for _, name in pairs],
    )
    return {pairs[row["place"]]: _secret(row, pairs[row["place"]][0]) for row in rows}


async def wanted_by(on: "Connection", jobs: Iterable[int]) -> list[Wanted]:
    """Read which secrets `jobs` name and may have."""
    rows = await on.fetch("select id, facts, manifest, ready from job where id = any($1::bigint[])", list(jobs))
    return [_wanted(row) for row in rows]


def _wanted(row: Any) -> Wanted:
    facts = JobFacts.model_validate_json(row["facts"])
    manifest = Manifest.model_validate_json(row["manifest"])
    allowed = secrets_allowed(row["ready"])
    return Wanted(row["id"], facts.owner, tuple(dict.fromkeys(manifest.secrets)) if allowed else ())


def _secret(row: Any, owner: str) -> KeptSecret:
    return KeptSecret(
        str(row["id"]), owner, row["kind"], row["name"], row["path"], row["mode"], row["value"], row["added_at"]
    )
