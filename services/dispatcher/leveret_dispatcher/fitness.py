"""Quarantine: what the ends of attempts say of the hosts they ran on is kept, and told where it changes something."""

import structlog

from leveret_dispatcher.desk import Desk
from leveret_dispatcher.ledger import Transaction
from leveret_dispatcher.worker_record import Sign, after, sign_of, words
from leveret_proto.capability import Requirement
from leveret_proto.messages import AttemptStatus

log = structlog.get_logger(__name__)


async def note_fitness(
    desk: Desk, tx: Transaction, worker: str, status: AttemptStatus, requirement: Requirement
) -> None:
    """Take what a status of `worker`, that holds, says of its host. `requirement`: what its job asked for."""
    await note_sign(desk, tx, worker, status.job, sign_of(status, requirement), words(status))


async def note_sign(desk: Desk, tx: Transaction, worker: str, job: int, sign: Sign, fault: str) -> None:
    """Take a sign of a worker's host, from an attempt at `job`. `fault`: what it was, where it was one."""
    before = desk.record_of(worker)
    record = after(before, sign, fault, tx.at, desk.config.quarantine_after)
    if record == before:
        return
    if sign is Sign.FAULT:
        log.warning("infrastructure fault", worker=worker, job=job, in_a_row=record.faults, fault=fault)
    await desk.keep_record(tx, worker, record)
    if record.quarantined is not None and before.quarantined is None:
        log.error("worker quarantined", worker=worker, fault=record.last_fault)
        why = f"{record.faults} faults in a row, the last: {record.last_fault}"
        await desk.tell_worker(tx, worker, "quarantined", why)
    elif before.quarantined is not None and record.quarantined is None:
        log.info("quarantine ended by an attempt that ended well", worker=worker, job=job)
        await desk.tell_worker(tx, worker, "resumed", f"job {job} ended well")
