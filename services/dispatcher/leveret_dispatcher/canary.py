"""The canary: proof that the path of the beats through the broker works, and the pulse that moves the leases' clock.

It goes through the workers' queue itself, so its return proves that every beat before it has been taken. Beats that
wait behind an outage can then never be mistaken for silence.
"""

import asyncio
from collections.abc import Sequence
from uuid import uuid4

import structlog
from aio_pika.abc import AbstractIncomingMessage

from leveret_dispatcher import session_store
from leveret_dispatcher.config import APP
from leveret_dispatcher.desk import Desk
from leveret_dispatcher.fitness import note_sign
from leveret_dispatcher.leases import Held
from leveret_dispatcher.ledger import Transaction
from leveret_dispatcher.lifecycle import Overdue, Returned
from leveret_dispatcher.metrics import SESSIONS_LOST
from leveret_dispatcher.worker_record import Sign
from leveret_proto.envelope import RAW, Parcel
from leveret_proto.messages import Abandon
from leveret_proto.topology import DISPATCHER_WORKERS
from leveret_runtime.broker import Refused
from leveret_runtime.waits import pause

log = structlog.get_logger(__name__)

TYPE = "dispatcher.canary"


class Canary:
    """The canary of one term of leadership."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._name = str(uuid4())

    async def fly_for_ever(self, stop: asyncio.Event) -> None:
        """Send the canary at its interval until `stop` is set."""
        while not stop.is_set():
            parcel = Parcel(b"", TYPE, RAW)
            try:
                await self._desk.publisher.send(
                    "", DISPATCHER_WORKERS, parcel, app=APP, mandatory=False, correlation_id=self._name
                )
            except Refused as error:
                log.warning("the canary was refused, so leases stand still", reason=str(error))
            await pause(self._desk.config.canary, stop)

    @staticmethod
    def released(delivery: AbstractIncomingMessage) -> bool:
        """Whether `delivery` is any leader's canary. Workers may not publish on the default exchange."""
        return delivery.type == TYPE and not delivery.exchange

    def owns(self, delivery: AbstractIncomingMessage) -> bool:
        """Whether `delivery` is the canary of this term."""
        return self.released(delivery) and delivery.correlation_id == self._name

    async def came_back(self) -> None:
        """Move the leases' clock, and part with what has run out."""
        desk = self._desk
        desk.leases.canary_back(asyncio.get_running_loop().time())
        for worker in desk.leases.lost_sessions():
            await self._lose_session(worker)
        # judged again within the transaction: what was under way before it may have renewed or ended them
        if desk.leases.lost():
            async with desk.transaction() as tx:
                await self._part_with(tx, desk.leases.lost())
        await self._end_overdue()

    async def _part_with(self, tx: Transaction, lost: Sequence[Held]) -> None:
        """Take attempts as lost. Those whose worker beats, but never took the grant, have come back from it instead."""
        desk = self._desk
        not_taken = [held for held in lost if not held.acknowledged and held.worker in desk.sessions]
        await desk.lose(tx, [held for held in lost if held not in not_taken], "its worker was not heard any more")
        await desk.move(tx, {held.job: Returned(f"worker {held.worker} did not take it") for held in not_taken})
        for held in not_taken:
            # their tokens are free again; one that is not, the database refuses
            desk.sessions[held.worker].used.clear()
            await note_sign(desk, tx, held.worker, held.job, Sign.FAULT, "it beats, and takes no grant")

    async def _lose_session(self, worker: str) -> None:
        desk = self._desk
        session = desk.sessions.get(worker)
        if session is None:
            desk.leases.leave(worker)
            return
        async with desk.transaction() as tx:
            if desk.sessions.get(worker) is not session or worker not in desk.leases.lost_sessions():
                return
            await session_store.end(tx.on, session.id, "lost")
            await desk.lose(tx, desk.leases.of_worker(worker), f"worker {worker} was not heard any more")
            await desk.tell_worker(tx, session, "lost")
            tx.after.append(lambda: desk.unseat(session))
        SESSIONS_LOST.inc()
        log.warning("session lost", worker=worker, session=session.id)

    async def _end_overdue(self) -> None:
        desk = self._desk
        if not desk.leases.overdue():
            return
        async with desk.transaction() as tx:
            overdue = desk.leases.overdue()
            await desk.move(tx, {held.job: Overdue() for held in overdue})
        for held in overdue:
            session = desk.sessions.get(held.worker)
            if session is not None:
                order = Abandon(grant=held.grant, why="the job outlived its time limit")
                await desk.control(held.worker, session.id, order)
