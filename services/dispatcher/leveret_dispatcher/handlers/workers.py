"""Beats and claims from workers, and our own canary that comes back in line behind them."""

import asyncio
from functools import partial

import structlog
from aio_pika.abc import AbstractConnection

from leveret_dispatcher import session_store, store
from leveret_dispatcher.canary import Canary
from leveret_dispatcher.desk import Desk
from leveret_dispatcher.granting import publish_again
from leveret_dispatcher.handlers.reading import Delivery, batches, believed_worker, readable, settle_batch, worker_of
from leveret_dispatcher.lifecycle import Verdict, judge_grant
from leveret_dispatcher.matching import Session
from leveret_dispatcher.sessions import Standing, believed_key, judge, new_session
from leveret_proto.envelope import Unreadable, unpack
from leveret_proto.messages import (
    Abandon,
    AttemptState,
    Cancel,
    Drain,
    Refuse,
    Resume,
    Settle,
    WorkerBeat,
    WorkerClaim,
)
from leveret_proto.topology import DISPATCHER_WORKERS
from leveret_runtime.failpoints import failpoint

log = structlog.get_logger(__name__)

BATCH = 200


async def consume_workers(desk: Desk, canary: Canary, on: AbstractConnection, stop: asyncio.Event) -> None:
    """Take beats, claims and the canary, in order, until `stop` is set."""
    async for batch in batches(on, DISPATCHER_WORKERS, stop, BATCH):
        ours = [delivery for delivery in batch if canary.owns(delivery)]
        theirs = [delivery for delivery in batch if not canary.released(delivery)]
        for _, said in await readable(theirs, DISPATCHER_WORKERS, _read, desk.publisher):
            if isinstance(said, WorkerBeat):
                await take_beat(desk, said)
            else:
                take_claim(desk, said)
        failpoint("dispatcher.beats.before-ack")
        await settle_batch(batch)
        if ours:  # what beats came before it has been taken: now the leases may be judged
            await canary.came_back()


def _read(delivery: Delivery) -> WorkerBeat | WorkerClaim:
    said = unpack(delivery.body, delivery.type)
    if not isinstance(said, WorkerBeat | WorkerClaim):
        raise Unreadable(f"expected a beat or a claim, got {delivery.type}")
    believed_worker(worker_of(delivery), said.worker)
    if isinstance(said, WorkerBeat):
        believed_key(said)
    return said


def take_claim(desk: Desk, claim: WorkerClaim) -> None:
    """Note slots that have become free. A claim of a session that does not live is void."""
    session = desk.sessions.get(claim.worker)
    if session is not None and session.id == claim.session and not session.draining:
        session.take_claim(claim.tokens)
        desk.matching.freed(session)
        desk.stirred.set()


async def take_beat(desk: Desk, beat: WorkerBeat) -> None:
    """Take what a session says of itself."""
    live = desk.sessions.get(beat.worker)
    past = None
    if live is None or live.id != beat.session:
        async with desk.database.connection() as on:
            past = await session_store.past(on, beat.session)
    standing = judge(beat, live, past)
    if standing is Standing.LATE:
        return
    if standing is Standing.REFUSED:
        await _refuse(desk, beat)
        return
    if standing is Standing.KNOWN and live is not None:
        if beat.closing:
            await _close(desk, live, beat)
            return
        session = live
        await _note_changes(desk, session, beat)
    else:
        session = await _begin(desk, beat, live)
    await _renew(desk, session, beat)


async def _begin(desk: Desk, beat: WorkerBeat, before: Session | None) -> Session:
    """A session joins. What its worker held before and does not list now is lost; spooled results are listed."""
    session = new_session(beat)
    listed = {held.grant for held in beat.held}
    async with desk.transaction(lambda: failpoint("dispatcher.beats.before-commit")) as tx:
        if before is not None:
            await session_store.end(tx.on, before.id, "replaced")
        await session_store.write(tx.on, session)
        gone = [held for held in desk.leases.of_worker(beat.worker) if held.grant not in listed]
        await desk.lose(tx, gone, f"worker {beat.worker} was restarted")
        halt = desk.record_of(beat.worker).halt
        told = [*(["restarted"] if before is not None else []), *([halt.why] if halt is not None else [])]
        await desk.tell_worker(tx, session, "joined", "; ".join(told) or None, beat.notes)
        tx.after.append(lambda: _exchange(desk, before, session))
    failpoint("dispatcher.beats.between-commit-and-publish")
    log.info("session joined", worker=beat.worker, session=beat.session, slots=beat.slots)
    return session


def _exchange(desk: Desk, before: Session | None, session: Session) -> None:
    if before is not None:
        desk.unseat(before)
    desk.seat(session)


async def _note_changes(desk: Desk, session: Session, beat: WorkerBeat) -> None:
    """Take over what a living session has changed in its offer."""
    new = (beat.capabilities, beat.slots, beat.draining, beat.public_key)
    if new == (session.offer, session.slots, session.draining, session.public_key):
        if session.withdrawn:
            desk.matching.seat(session)
        return
    changed = new_session(beat)
    # an operator's order has been told when it was given; the worker only says that it obeys
    news = (beat.capabilities, beat.slots) != (session.offer, session.slots)
    drains = beat.draining and not session.draining and not beat.drained
    async with desk.transaction(lambda: failpoint("dispatcher.beats.before-commit")) as tx:
        await session_store.write(tx.on, changed)
        if news or drains:
            await desk.tell_worker(tx, changed, "draining" if drains else "changed", None, beat.notes)
        tx.after.append(partial(_reseat, desk, session, beat))
    failpoint("dispatcher.beats.between-commit-and-publish")


def _reseat(desk: Desk, session: Session, beat: WorkerBeat) -> None:
    session.offer, session.slots, session.draining = beat.capabilities, beat.slots, beat.draining
    session.public_key = beat.public_key
    desk.matching.seat(session)


async def _renew(desk: Desk, session: Session, beat: WorkerBeat) -> None:
    """Renew leases, take free slots, and answer for every grant that is listed, or should be and is not."""
    session.beat = beat.beat
    again = desk.leases.beat(beat.worker, beat.beat, frozenset(held.grant for held in beat.held))
    session.take_beat(() if beat.draining else beat.tokens)
    desk.matching.freed(session)
    desk.stirred.set()
    if again:
        await publish_again(desk, [held.grant for held in again])
    await _answer_for_held(desk, session, beat)
    await _answer_for_drain(desk, session, beat)


async def _answer_for_drain(desk: Desk, session: Session, beat: WorkerBeat) -> None:
    """Repeat an operator's order that a session should have had: it joined after it, or was away for a moment."""
    drained = desk.record_of(beat.worker).drained
    if drained is not None and not beat.draining:
        await desk.control(session.worker, session.id, Drain(limit=drained.limit))
    elif drained is None and beat.drained:
        await desk.control(session.worker, session.id, Resume())


async def _answer_for_held(desk: Desk, session: Session, beat: WorkerBeat) -> None:
    """Repeat the orders that a session should have had: for grants that are over, and for those to be cancelled."""
    doubtful = []
    for listed in beat.held:
        held = desk.leases.get(listed.grant)
        if held is None or held.worker != beat.worker:
            doubtful.append(listed.grant)
        elif held.cancelling and listed.state is not AttemptState.ENDED:
            await desk.control(session.worker, session.id, Cancel(grant=listed.grant))
    if not doubtful:
        return
    async with desk.database.connection() as on:
        known = await store.attempts(on, doubtful)
    verdicts = {grant: judge_grant(known.get(grant), beat.worker) for grant in doubtful}
    settled = tuple(grant for grant, verdict in verdicts.items() if verdict is Verdict.SETTLE)
    if settled:
        await desk.control(session.worker, session.id, Settle(grants=settled))
    for grant, verdict in verdicts.items():
        if verdict is Verdict.ABANDON:
            await desk.control(session.worker, session.id, Abandon(grant=grant, why="the grant is void"))


async def _close(desk: Desk, session: Session, beat: WorkerBeat) -> None:
    """The session says goodbye. Only attempts whose result is on its way are still waited for."""
    coming = {held.grant for held in beat.held if held.state is AttemptState.ENDED}
    async with desk.transaction(lambda: failpoint("dispatcher.beats.before-commit")) as tx:
        await session_store.end(tx.on, session.id, "closed")
        gone = [held for held in desk.leases.of_worker(beat.worker) if held.grant not in coming]
        await desk.lose(tx, gone, f"worker {beat.worker} left")
        await desk.tell_worker(tx, session, "left")
        tx.after.append(lambda: desk.unseat(session))
    failpoint("dispatcher.beats.between-commit-and-publish")
    log.info("session left", worker=beat.worker, session=beat.session)


async def _refuse(desk: Desk, beat: WorkerBeat) -> None:
    why = f"another session of worker {beat.worker} is live"
    if desk.refuse(beat.session):
        log.warning("session refused", worker=beat.worker, session=beat.session)
        async with desk.transaction() as tx:
            await desk.tell_worker(tx, new_session(beat), "refused", why)
    await desk.control(beat.worker, beat.session, Refuse(why=why))
