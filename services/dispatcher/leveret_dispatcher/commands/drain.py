"""`leveret worker drain | resume`: who is to be given jobs. The broker lets operators alone ask."""

from dataclasses import replace

import structlog

from leveret_dispatcher import session_store
from leveret_dispatcher.commands.asked import Asked, Handlers
from leveret_dispatcher.desk import Desk
from leveret_dispatcher.ledger import Transaction
from leveret_dispatcher.worker_record import BLANK, Drained
from leveret_proto.messages import (
    CommandFailed,
    Drain,
    DrainWorker,
    Message,
    Resume,
    ResumeWorker,
    WorkerReply,
)
from leveret_runtime.failpoints import failpoint

log = structlog.get_logger(__name__)


async def drain(desk: Desk, asked: Asked[DrainWorker]) -> Message:
    """Give a worker no more jobs until it is resumed, and have it hand back in time what runs."""
    worker, limit = asked.command.worker, asked.command.limit
    async with desk.transaction(lambda: failpoint("dispatcher.commands.before-commit")) as tx:
        if not await _known(desk, tx, worker):
            return _not_found(worker)
        record = desk.record_of(worker)
        if record.drained is None or record.drained.limit != limit:
            order = Drained(asked.owner, limit, record.drained.since if record.drained is not None else tx.at)
            await desk.keep_record(tx, worker, replace(record, drained=order))
        if record.drained is None:
            await desk.tell_worker(tx, worker, "draining", f"drained by {asked.owner}")
    log.info("worker drained", worker=worker, by=asked.owner, limit=limit)
    session = desk.sessions.get(worker)
    if session is not None:  # should the order be lost, its next beat is answered with it again
        await desk.control(worker, session.id, Drain(limit=limit))
    return _standing(desk, worker)


async def resume(desk: Desk, asked: Asked[ResumeWorker]) -> Message:
    """Give a worker jobs again, whether it was drained or quarantined. Its faults are forgotten."""
    worker = asked.command.worker
    async with desk.transaction(lambda: failpoint("dispatcher.commands.before-commit")) as tx:
        if not await _known(desk, tx, worker):
            return _not_found(worker)
        record = desk.record_of(worker)
        if record != BLANK:
            await desk.keep_record(tx, worker, BLANK)
        if record.halt is not None:
            await desk.tell_worker(tx, worker, "resumed", f"by {asked.owner}")
    log.info("worker resumed", worker=worker, by=asked.owner)
    session = desk.sessions.get(worker)
    if session is not None and record.drained is not None:
        await desk.control(worker, session.id, Resume())
    return _standing(desk, worker)


async def _known(desk: Desk, tx: Transaction, worker: str) -> bool:
    """Whether a worker of that name was there of late: who mistypes a name is to be told."""
    return worker in desk.sessions or worker in desk.records or await session_store.heard_of(tx.on, worker)


def _not_found(worker: str) -> CommandFailed:
    return CommandFailed(code="not-found", message=f"no worker {worker} has been here within the last day")


def _standing(desk: Desk, worker: str) -> WorkerReply:
    return WorkerReply(
        worker=worker, live=worker in desk.sessions, running=len(desk.leases.of_worker(worker)),
        halt=desk.record_of(worker).halt,
    )  # fmt: skip


HANDLERS: Handlers = {DrainWorker: drain, ResumeWorker: resume}
