"""Secrets on their way to a worker: opened for the owner's job, sealed to the session it was matched with.

A job whose secrets can't all be given fails at once, with their names: as it is accepted, and again as it is granted,
since a secret may be removed while a job waits.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from leveret_dispatcher import secret_store
from leveret_dispatcher.keyring import NO_KEY, Keyring
from leveret_dispatcher.lifecycle import Input, SecretMissing
from leveret_dispatcher.secret_store import KeptSecret
from leveret_proto.capability import SECRETS_TAG, Requirement
from leveret_proto.messages import JobStatus, ReadyJob, SealedSecret
from leveret_runtime.sealing import SealError, seal

if TYPE_CHECKING:
    from leveret_dispatcher.desk import Desk
    from leveret_dispatcher.ledger import Transaction
    from leveret_dispatcher.matching import Match, Session
    from leveret_dispatcher.store import JobRow
    from leveret_runtime.db import Connection

Sealed = tuple[SealedSecret, ...]
#: Bytes that the secrets of one job may have together: sealed, they must fit into a grant (`envelope.MAX_BODY`).
MOST_GIVEN = 2 * 1024 * 1024
#: Names told of in one detail.
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Opened:
    """A secret with its value in the clear, which goes nowhere but into a seal."""

    secret: KeptSecret
    value: bytes = field(repr=False)

    def sealed(self, public_key: str) -> SealedSecret:
        """Give it as a grant carries it."""
        kept = self.secret
        return SealedSecret(
            uuid=kept.uuid, kind=kept.kind, name=kept.name, path=kept.path, mode=kept.mode,
            sealed=seal(self.value, public_key),
        )  # fmt: skip


def requiring_secrets(job: ReadyJob) -> ReadyJob:
    """Give the job with what its secrets require of a worker."""
    if not (job.secrets and job.manifest.secrets) or SECRETS_TAG in job.requirement.tags:
        return job
    requirement = job.requirement.model_copy(update={"tags": (*job.requirement.tags, SECRETS_TAG)})
    return job.model_copy(update={"requirement": requirement})


async def fail_without_secrets(desk: "Desk", tx: "Transaction", jobs: Iterable[ReadyJob]) -> None:
    """Fail those of the `jobs` just accepted whose secrets can't be given."""
    naming = [job.facts.job for job in jobs if SECRETS_TAG in job.requirement.tags]
    if naming:
        rows = await tx.jobs(naming)
        _, missing = await _open(desk, tx.on, _waiting(rows))
        await _fail(tx, rows, missing)


async def seal_for(
    desk: "Desk", tx: "Transaction", matches: Sequence["Match"], rows: dict[int, "JobRow"]
) -> dict[int, Sealed]:
    """Seal the secrets of the matched jobs, by job. Jobs whose secrets can't be given fail, and leave `rows`.

    Args:
        rows: those of the matched jobs.
    """
    naming = {match.job: match.session for match in matches if SECRETS_TAG in match.requirement.tags}
    if not naming:
        return {}
    opened, missing = await _open(desk, tx.on, [job for job in _waiting(rows) if job in naming])
    await _fail(tx, rows, missing)
    for job in missing:
        del rows[job]
    return {job: _seal(secrets, naming[job]) for job, secrets in opened.items()}


async def seal_again(desk: "Desk", grants: Sequence[Any]) -> tuple[list[Any], dict[int, Sealed]]:
    """Seal secrets for the sessions that were granted jobs before: give what may be published, and by job the seals.

    A grant is left out where the job's secrets can't be given any more (it fails), or where its session lives no more
    or has no key any more (its lease runs out).

    Args:
        grants: rows of `store.grants`.
    """
    naming = [row for row in grants if SECRETS_TAG in Requirement.model_validate_json(row["requirement"]).tags]
    if not naming:
        return list(grants), {}
    sessions = {}
    for row in naming:
        session = desk.sessions.get(row["worker"])
        if session is not None and session.id == str(row["session"]) and session.public_key is not None:
            sessions[row["job"]] = session
    async with desk.database.connection() as on:
        opened, missing = await _open(desk, on, sessions)
    if missing:
        async with desk.transaction() as tx:
            await _fail(tx, await tx.jobs(missing), missing)
    sealed = {job: _seal(secrets, sessions[job]) for job, secrets in opened.items()}
    left_out = {row["job"] for row in naming} - sealed.keys()
    return [row for row in grants if row["job"] not in left_out], sealed


def _waiting(rows: Mapping[int, "JobRow"]) -> list[int]:
    return [job for job, row in rows.items() if row.course.status is JobStatus.PENDING]


async def _open(desk: "Desk", on: "Connection", jobs: Iterable[int]) -> tuple[dict[int, list[Opened]], dict[int, str]]:
    """Open the secrets of `jobs`: by job, those of jobs that can have all of theirs, and why the other jobs can't."""
    wanted = await secret_store.wanted_by(on, jobs)
    kept = await secret_store.find(on, [(one.owner, name) for one in wanted for name in one.names])
    opened: dict[int, list[Opened]] = {}
    missing: dict[int, str] = {}
    for one in wanted:
        secrets = {name: kept.get((one.owner, name)) for name in one.names}
        unknown = [name for name, secret in secrets.items() if secret is None]
        if one.names and desk.keyring is None:
            missing[one.job] = NO_KEY
        elif unknown:
            missing[one.job] = f"{_listed(unknown)}: no such secret of {one.owner}; see `leveret secret list`"
        else:
            found = {secret.uuid: secret for secret in secrets.values() if secret is not None}
            try:
                opened[one.job] = _all_opened(desk.keyring, found.values())
            except SealError as error:
                missing[one.job] = str(error)
    return opened, missing


def _all_opened(keyring: Keyring | None, secrets: Iterable[KeptSecret]) -> list[Opened]:
    """Raises SealError: one can't be opened, or they are too much for a grant."""
    opened = [_opened(keyring, secret) for secret in secrets]
    size = sum(len(one.value) for one in opened)
    if size > MOST_GIVEN:
        raise SealError(f"the job's secrets have {size} bytes together; the most is {MOST_GIVEN}")
    return opened


def _opened(keyring: Keyring | None, secret: KeptSecret) -> Opened:
    """Raises SealError, naming the secret."""
    assert keyring is not None
    try:
        return Opened(secret, keyring.unlock(secret.locked, secret.uuid, secret.owner))
    except SealError as error:
        raise SealError(f"secret {secret.name or secret.uuid!r}: {error}; remove it and add it again") from None


def _seal(secrets: Iterable[Opened], session: "Session") -> Sealed:
    if session.public_key is None:
        raise LookupError(f"session {session.id} was matched with a job that has secrets, and has no public key")
    return tuple(secret.sealed(session.public_key) for secret in secrets)


async def _fail(tx: "Transaction", rows: Mapping[int, "JobRow"], missing: Mapping[int, str]) -> None:
    if missing:
        inputs: dict[int, Input] = {job: SecretMissing(why) for job, why in missing.items()}
        await tx.advance([rows[job] for job in missing], inputs, {})


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(repr(name) for name in names[:_NAMED]) + more
