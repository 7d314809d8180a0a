"""Statuses from workers: snapshots of attempts, believed only from the worker that holds the grant."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from aio_pika.abc import AbstractConnection

from leveret_dispatcher import store
from leveret_dispatcher.desk import Desk
from leveret_dispatcher.fitness import note_fitness
from leveret_dispatcher.handlers.reading import Delivery, batches, believed_worker, readable, settle_batch
from leveret_dispatcher.ledger import Result, Transaction, snapshot_of
from leveret_dispatcher.lifecycle import Input, Verdict, judge_status
from leveret_proto import keys
from leveret_proto.envelope import Unreadable, unpack_as
from leveret_proto.messages import Abandon, AttemptState, AttemptStatus, Settle
from leveret_proto.topology import DISPATCHER_STATUS
from leveret_runtime.failpoints import failpoint

log = structlog.get_logger(__name__)

BATCH = 200
#: Seconds between two transactions.
APART = 0.02
#: A status's number is stored as a signed 64-bit integer.
MOST_SEQ = 2**63


@dataclass(frozen=True, slots=True)
class Told:
    """A status and the worker that the broker says it comes from."""

    worker: str
    status: AttemptStatus


async def consume_statuses(desk: Desk, on: AbstractConnection, stop: asyncio.Event) -> None:
    """Take statuses until `stop` is set."""
    async for batch in batches(on, DISPATCHER_STATUS, stop, BATCH, apart=APART):
        told = [told for _, told in await readable(batch, DISPATCHER_STATUS, _read, desk.publisher)]
        if not told:
            continue
        newest = _newest(told)
        async with desk.transaction(lambda: failpoint("dispatcher.status.before-commit")) as tx:
            verdicts = await _apply(desk, tx, newest)
        for one, verdict in zip(newest, verdicts, strict=True):
            if verdict in (Verdict.APPLY, Verdict.STALE):
                desk.leases.heard(one.status.grant)
        failpoint("dispatcher.status.between-commit-and-publish")
        await _answer(desk, list(zip(newest, verdicts, strict=True)))
        failpoint("dispatcher.status.before-ack")
        await settle_batch(batch)


def _read(delivery: Delivery) -> Told:
    key = keys.parse_status(delivery.routing_key or "")
    status = unpack_as(AttemptStatus, delivery.body, delivery.type)
    worker = believed_worker(key.worker, status.worker)
    if (key.job, key.attempt) != (status.job, status.attempt):
        raise Unreadable(f"the routing key names attempt {key.job}/{key.attempt}, the body another")
    if status.result is not None and not status.result.ended:
        raise Unreadable(f"result: {status.result} is no end")
    if status.seq >= MOST_SEQ:
        raise Unreadable(f"seq: {status.seq} is too large")
    return Told(worker, status)


def _newest(told: Sequence[Told]) -> list[Told]:
    """Keep of each worker's word on a grant the one with the highest seq: snapshots are cumulative."""
    newest: dict[tuple[str, str], Told] = {}
    for one in told:
        key = (one.worker, one.status.grant)
        if key not in newest or one.status.seq > newest[key].status.seq:
            newest[key] = one
    return list(newest.values())


async def _apply(desk: Desk, tx: Transaction, told: Sequence[Told]) -> list[Verdict]:
    rows = await tx.jobs([one.status.job for one in told])
    known = await store.attempts(tx.on, [one.status.grant for one in told])
    verdicts = [judge_status(known.get(one.status.grant), one.worker, one.status) for one in told]
    inputs: dict[int, Input] = {}
    results: dict[int, Result] = {}
    seqs: dict[str, int] = {}
    for one, verdict in zip(told, verdicts, strict=True):
        if verdict is Verdict.APPLY:
            inputs[one.status.job], results[one.status.job] = snapshot_of(one.status)
            seqs[one.status.grant] = one.status.seq
            await note_fitness(desk, tx, one.worker, one.status, rows[one.status.job].requirement)
    if seqs:
        await store.note_statuses(tx.on, seqs)
        await tx.advance([rows[job] for job in inputs], inputs, results)
    return verdicts


async def _answer(desk: Desk, judged: Sequence[tuple[Told, Verdict]]) -> None:
    """Settle what has ended, in one message for each session, and have void grants abandoned."""
    settled: dict[tuple[str, str], list[str]] = {}
    async with asyncio.TaskGroup() as group:
        for one, verdict in judged:
            status = one.status
            if verdict is Verdict.SETTLE or (verdict is Verdict.APPLY and status.state is AttemptState.ENDED):
                settled.setdefault((one.worker, status.session), []).append(status.grant)
            elif verdict is Verdict.ABANDON:
                log.info("status of a void grant", worker=one.worker, job=status.job, attempt=status.attempt)
                order = Abandon(grant=status.grant, why="the grant is void")
                group.create_task(desk.control(one.worker, status.session, order))
        for (worker, session), grants in settled.items():
            group.create_task(desk.control(worker, session, Settle(grants=tuple(grants))))
