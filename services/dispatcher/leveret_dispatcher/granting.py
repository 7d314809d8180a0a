"""Granting: matches become attempts by one compare-and-set, then messages. And: those that wait are told why."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple
from uuid import uuid4

import structlog

from leveret_dispatcher import store
from leveret_dispatcher.config import APP
from leveret_dispatcher.desk import Desk
from leveret_dispatcher.ledger import Transaction
from leveret_dispatcher.lifecycle import Granted, Input, Returned, Waits
from leveret_dispatcher.matching import Match
from leveret_dispatcher.metrics import GRANT_SECONDS
from leveret_dispatcher.secret_granting import Sealed, seal_again, seal_for
from leveret_dispatcher.store import JobRow, NewAttempt
from leveret_proto import keys
from leveret_proto.base import JobFacts
from leveret_proto.capability import Requirement, serves
from leveret_proto.envelope import pack
from leveret_proto.manifest import Manifest
from leveret_proto.messages import Grant, JobStatus
from leveret_proto.topology import WORK
from leveret_runtime.broker import Refused, Unroutable
from leveret_runtime.failpoints import failpoint
from leveret_runtime.waits import pause

log = structlog.get_logger(__name__)

#: Grants made in one transaction, and waiting jobs told in one.
BATCH = 100
#: Seconds between looks where nothing stirs.
IDLE = 5.0


class Given(NamedTuple):
    """A grant that was made, the requirement of its job, and when they matched (the loop's clock)."""

    grant: Grant
    requirement: Requirement
    matched_at: float


Granting = list[Given]


async def grant_for_ever(desk: Desk, stop: asyncio.Event) -> None:
    """Match and grant whenever something stirs, until `stop` is set."""
    async with asyncio.TaskGroup() as sending:
        while not stop.is_set():
            desk.stirred.clear()
            while await grant_some(desk, sending):
                if stop.is_set():
                    return
            await tell_reasons(desk)  # which stirs again: whoever may run goes first
            await pause(IDLE, desk.stirred, stop)


async def grant_some(desk: Desk, sending: asyncio.TaskGroup) -> bool:
    """Grant one batch; say whether there was anything to match."""
    matches = desk.matching.match(BATCH)
    if not matches:
        return False
    matched_at = asyncio.get_running_loop().time()
    async with desk.transaction() as tx:
        granted = await grant_within(desk, tx, matches, matched_at)
    send(desk, granted, sending)
    return True


async def grant_new(desk: Desk, tx: Transaction) -> Granting:
    """Grant at once, in the transaction that has made it so, what may run; `send` it after the commit."""
    matches = desk.matching.match(BATCH)
    return await grant_within(desk, tx, matches, asyncio.get_running_loop().time()) if matches else []


async def grant_within(desk: Desk, tx: Transaction, matches: Sequence[Match], matched_at: float) -> Granting:
    """Make attempts of those of `matches`, found at `matched_at`, that still hold."""
    rows = await tx.jobs([match.job for match in matches])
    standing = [match for match in matches if _stands(desk, match, rows.get(match.job))]
    sealed = await seal_for(desk, tx, standing, rows)
    standing = [match for match in standing if match.job in rows]
    planned = {str(uuid4()): match for match in standing}
    plans = [_attempt(grant, match, rows[match.job]) for grant, match in planned.items()]
    new = await store.insert_attempts(tx.on, plans, desk.leadership.epoch)
    given = {grant: match for grant, match in planned.items() if grant in new}
    inputs: dict[int, Input] = {match.job: Granted(match.session.worker) for match in given.values()}
    await tx.advance([rows[job] for job in inputs], inputs, {})
    manifests = await tx.manifests(inputs)
    granted: Granting = []
    for grant, match in given.items():
        message = _grant(desk, grant, match, rows[match.job], manifests[match.job], sealed.get(match.job, ()))
        granted.append(Given(message, match.requirement, matched_at))
    tx.after.append(lambda: _remember(desk, granted, matches, rows))
    # a token that turned out used stays spent: it was granted before this leader's time
    tx.after += [partial(_release_token, desk, match) for match in matches if match not in standing]
    failpoint("dispatcher.grants.before-commit")
    return granted


def send(desk: Desk, granted: Granting, sending: asyncio.TaskGroup) -> None:
    """Publish grants that have been committed, each in a task of `sending`."""
    if granted:
        failpoint("dispatcher.grants.between-commit-and-publish")
    for given in granted:
        sending.create_task(_publish_first(desk, given))


def _stands(desk: Desk, match: Match, row: JobRow | None) -> bool:
    """Whether a match still holds, now that nothing else can change."""
    session = match.session
    return (
        row is not None
        and row.course.status is JobStatus.PENDING
        and desk.sessions.get(session.worker) is session
        and session.welcomes_jobs
        and serves(session.offer, match.requirement)  # which a beat may have changed since
    )


def _remember(desk: Desk, granted: Granting, matches: Sequence[Match], rows: dict[int, JobRow]) -> None:
    """Begin the leases of what was granted; put back in line what was not and still waits."""
    beats = {match.job: match.session.beat for match in matches}
    for grant, _, _ in granted:
        job = grant.facts.job
        limit = grant.time_limit + desk.config.overrun
        desk.leases.hold(grant.grant, job, grant.attempt, grant.worker, limit, beat=beats.pop(job))
    for match in matches:
        row = rows.get(match.job)
        if match.job not in beats:
            continue
        desk.matching.release(match.owner)
        if row is not None and row.course.status is JobStatus.PENDING:
            desk.matching.add(match.job, match.owner, match.requirement, row.priority, row.course.reason)


def _release_token(desk: Desk, match: Match) -> None:
    match.session.give_back(match.token)
    desk.matching.freed(match.session)


async def _publish_first(desk: Desk, given: Given) -> None:
    if await publish(desk, given.grant, given.requirement):
        GRANT_SECONDS.observe(asyncio.get_running_loop().time() - given.matched_at)


async def publish(desk: Desk, grant: Grant, requirement: Requirement) -> bool:
    """Publish a grant; one that no session takes (False) is taken back, and its job matched again."""
    key = keys.grant(requirement.key, grant.worker, grant.session)
    try:
        await desk.publisher.send(WORK, key, pack(grant), app=APP)
    except (Unroutable, Refused) as error:
        log.info("grant came back", job=grant.facts.job, worker=grant.worker, reason=str(error))
        await _take_back(desk, grant, requirement)
        return False
    return True


async def _take_back(desk: Desk, grant: Grant, requirement: Requirement) -> None:
    session = desk.sessions.get(grant.worker)
    if session is not None and session.id == grant.session:
        desk.matching.withdraw(session, requirement)
    async with desk.transaction() as tx:
        rows = await tx.jobs([grant.facts.job])
        current = [row for row in rows.values() if row.course.attempt == grant.attempt]
        why = f"worker {grant.worker} does not take such jobs any more"
        await tx.advance(current, {row.id: Returned(why) for row in current}, {})
        if session is not None:
            tx.after.append(partial(session.used.discard, grant.token))


async def publish_again(desk: Desk, grants: list[str]) -> None:
    """Publish grants again whose message seems lost: same grant, same token."""
    async with desk.database.connection() as on:
        rows = await store.grants(on, grants)
    rows, sealed = await seal_again(desk, rows)
    async with asyncio.TaskGroup() as group:
        for row in rows:
            requirement = Requirement.model_validate_json(row["requirement"])
            log.info("grant published again", job=row["job"], worker=row["worker"])
            group.create_task(publish(desk, _stored_grant(desk, row, sealed.get(row["job"], ())), requirement))


async def tell_reasons(desk: Desk) -> None:
    """Tell one batch of waiting jobs why they wait."""
    found = desk.matching.untold(BATCH, asyncio.get_running_loop().time())
    if not found:
        return
    async with desk.transaction() as tx:
        await desk.move(tx, {job: Waits(reason, detail) for job, reason, detail in found})


def _attempt(grant: str, match: Match, row: JobRow) -> NewAttempt:
    session = match.session
    return NewAttempt(grant, match.job, row.course.attempt + 1, session.worker, session.id, match.token, row.time_limit)


def _grant(desk: Desk, grant: str, match: Match, row: JobRow, manifest: Manifest, secrets: Sealed) -> Grant:
    return Grant(
        grant=grant,
        facts=row.facts,
        attempt=row.course.attempt + 1,
        worker=match.session.worker,
        session=match.session.id,
        token=match.token,
        epoch=desk.leadership.epoch,
        manifest=manifest,
        time_limit=row.time_limit,
        log_limit=desk.config.log_limit,
        job_log_limit=desk.config.job_log_limit,
        artifact_limit=desk.config.artifact_limit,
        secrets=secrets,
    )


def _stored_grant(desk: Desk, row: Any, secrets: Sealed) -> Grant:
    return Grant(
        grant=str(row["id"]),
        facts=JobFacts.model_validate_json(row["facts"]),
        attempt=row["number"],
        worker=row["worker"],
        session=str(row["session"]),
        token=str(row["token"]),
        epoch=desk.leadership.epoch,
        manifest=Manifest.model_validate_json(row["manifest"]),
        time_limit=row["time_limit"],
        log_limit=desk.config.log_limit,
        job_log_limit=desk.config.job_log_limit,
        artifact_limit=desk.config.artifact_limit,
        secrets=secrets,
    )
