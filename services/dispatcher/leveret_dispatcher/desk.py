"""The leader's desk: its picture of the present in memory, and the only way to change a job.

The database is the truth; what is in memory is an index of it, changed along with a transaction, and thrown away with
the term of leadership, which a transaction that fails ends. One transaction at a time, in batches: faster than many at
once that wait for each other's rows.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from leveret_dispatcher import dependency_store, metrics, session_store, store, worker_store
from leveret_dispatcher.config import APP, Config
from leveret_dispatcher.dependencies import Dependencies, Outlook, failure, outlook
from leveret_dispatcher.events import Links
from leveret_dispatcher.keyring import Keyring
from leveret_dispatcher.leader import Leadership
from leveret_dispatcher.leases import Held, Leases
from leveret_dispatcher.ledger import Change, Transaction
from leveret_dispatcher.lifecycle import Input, Lost
from leveret_dispatcher.matching import Matching, Session
from leveret_dispatcher.store import WaitingJob
from leveret_dispatcher.worker_record import BLANK, WorkerRecord
from leveret_proto import keys
from leveret_proto.envelope import pack
from leveret_proto.messages import Cancel, JobStatus, Message, WorkerEvent
from leveret_proto.topology import CONTROL, RECORD
from leveret_proto.words import unescape
from leveret_runtime.broker import Publisher, Refused, Unroutable

if TYPE_CHECKING:
    from leveret_runtime.db import Database

log = structlog.get_logger(__name__)

#: Refused sessions remembered.
MOST_REFUSED = 1000


class Desk:
    """Everything the handlers share for one term of leadership."""

    def __init__(
        self,
        config: Config,
        database: "Database",
        leadership: Leadership,
        publisher: Publisher,
        on_commit: Callable[[], None],
    ) -> None:
        """`on_commit` is called after every commit: there may be something in the outbox."""
        self.config = config
        self.database = database
        self.leadership = leadership
        self.publisher = publisher
        self.links = Links(config.logs_url)
        #: None: this installation keeps no secrets.
        self.keyring = Keyring(config.secrets_key.get_secret_value()) if config.secrets_key is not None else None
        self.matching = Matching(config.running_limit)
        self.dependencies = Dependencies()
        #: Jobs in vain: one that they depend on did not succeed, in words. They are to be ended; `broke` says so.
        self.broken: dict[int, str] = {}
        self.broke = asyncio.Event()
        #: Jobs that wait for others, as matching will be given them.
        self._held_back: dict[int, WaitingJob] = {}
        self.leases = Leases(config.lease, longest_tick=3 * config.canary)
        #: The live session of each worker.
        self.sessions: dict[str, Session] = {}
        #: What is kept of workers, live or not; of the others there is nothing to keep.
        self.records: dict[str, WorkerRecord] = {}
        #: Set when a job and a free slot may meet, or a reason for waiting may have changed.
        self.stirred = asyncio.Event()
        #: Sessions refused already, so that each is told to the world once.
        self._refused: set[str] = set()
        self._on_commit = on_commit
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def transaction(self, failpoint: Callable[[], None] = lambda: None) -> AsyncIterator[Transaction]:
        """Change jobs: fenced by the epoch, committed at the block's end.

        A change is true in memory when it is made: where the transaction fails, the term ends, and this desk with it.
        `failpoint` is called right before the commit. Raises Deposed, DatabaseAway.
        """
        async with self._lock:
            async with self.database.transaction() as on:
                at = await self.leadership.check(on)
                open_ = Transaction(on, at, self.links, self._apply)
                yield open_
                await open_.flush()
                failpoint()
            for action in open_.after:
                action()
            metrics.count(open_.changes, at)
            self._on_commit()
            self.stirred.set()

    async def load(self) -> None:
        """Learn the present from the database. Leases start afresh."""
        async with self.database.connection() as on:
            needs: dict[int, dict[int, JobStatus | None]] = {}
            for job, needed, status in await dependency_store.unmet(on):
                needs.setdefault(job, {})[needed] = status
            for waiting in await store.waiting_jobs(on):
                self._wait(waiting, outlook(needs.get(waiting.id, {})))
            for row in await store.attempts_under_way(on):
                self.matching.hold(unescape(row["owner"]))
                self.leases.hold(
                    str(row["id"]), row["job"], row["number"], row["worker"],
                    row["time_limit"] + self.config.overrun,
                    elapsed=row["elapsed"], acknowledged=row["seq"] > 0, cancelling=row["cancelling"],
                )  # fmt: skip
            self.records = await worker_store.records(on)
            for session in await session_store.live(on):
                self.seat(session)
        self.stirred.set()
        log.info(
            "loaded", waiting=len(self.matching), depending=len(self.dependencies), sessions=len(self.sessions)
        )  # fmt: skip

    @property
    def status(self) -> str:
        """The present, in a line for people."""
        waiting = len(self.matching) + len(self.dependencies)
        return f"{len(self.leases)} jobs granted or running, {waiting} waiting, {len(self.sessions)} workers"

    def seat(self, session: Session) -> None:
        """A session lives: it may be granted jobs, unless its worker is halted."""
        session.halt = self.record_of(session.worker).halt
        self.sessions[session.worker] = session
        self.leases.join(session.worker)
        self.matching.seat(session)
        self.stirred.set()

    def unseat(self, session: Session) -> None:
        """A session lives no more."""
        if self.sessions.get(session.worker) is session:
            del self.sessions[session.worker]
            self.leases.leave(session.worker)
        self.matching.unseat(session)
        self.stirred.set()

    def refuse(self, session: str) -> bool:
        """Note that a session is refused; say whether that is news."""
        if session in self._refused:
            return False
        if len(self._refused) >= MOST_REFUSED:
            self._refused.clear()
        self._refused.add(session)
        return True

    async def move(self, tx: Transaction, inputs: dict[int, Input]) -> None:
        """Lock the jobs and give each its input."""
        if inputs:
            rows = await tx.jobs(inputs)
            await tx.advance(list(rows.values()), inputs, {})

    def prioritize(self, job: int, priority: int) -> None:
        """A waiting job's priority has changed."""
        self.matching.prioritize(job, priority)
        held_back = self._held_back.get(job)
        if held_back is not None:
            self._held_back[job] = held_back._replace(priority=priority)

    async def lose(self, tx: Transaction, held: Sequence[Held], why: str) -> None:
        """Take attempts as lost."""
        rows = await tx.jobs([one.job for one in held])
        numbers = {one.job: one.attempt for one in held}
        current = [row for row in rows.values() if row.course.attempt == numbers[row.id]]
        await tx.advance(current, {row.id: Lost(why) for row in current}, {})

    def record_of(self, worker: str) -> WorkerRecord:
        return self.records.get(worker, BLANK)

    async def keep_record(self, tx: Transaction, worker: str, record: WorkerRecord) -> None:
        """Keep `record` of a worker. Its session is given jobs accordingly, at once or never again."""
        await worker_store.write(tx.on, worker, record)
        if record == BLANK:
            self.records.pop(worker, None)
        else:
            self.records[worker] = record
        session = self.sessions.get(worker)
        if session is not None and session.halt != record.halt:
            session.halt = record.halt
            self.matching.seat(session)

    async def tell_worker(
        self, tx: Transaction, worker: Session | str, state: str, detail: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        """Publish a WorkerEvent with the transaction. `worker`: a session, or a name that may have one."""
        session = self.sessions.get(worker) if isinstance(worker, str) else worker
        name = worker if isinstance(worker, str) else worker.worker
        event = WorkerEvent.model_validate(
            {
                "worker": name, "state": state, "capabilities": session and session.offer,
                "slots": session and session.slots, "detail": detail, "notes": notes, "at": tx.at,
            }
        )  # fmt: skip
        tx.tell(RECORD, keys.worker_event(name, state), event)

    async def control(self, worker: str, session: str, order: Message) -> None:
        """Order a session. One that is not there gets nothing: its next beat is answered again."""
        try:
            await self.publisher.send(CONTROL, keys.control(worker, session), pack(order), app=APP)
        except (Unroutable, Refused) as error:
            log.info("order not taken", worker=worker, order=order.TYPE, reason=str(error))

    async def order_cancel(self, job: int) -> None:
        """Have the worker end the attempt under way of `job`, if there is one."""
        held = self.leases.of_job(job)
        session = self.sessions.get(held.worker) if held is not None else None
        if held is not None and session is not None:
            await self.control(held.worker, session.id, Cancel(grant=held.grant))

    def _wait(self, job: WaitingJob, expects: Outlook) -> None:
        """A job waits: for others, or for a slot."""
        if expects.failed is not None:
            self.broken[job.id] = expects.failed
            self.broke.set()
        elif expects.waits_for:
            self.dependencies.add(job.id, job.owner, expects.waits_for)
            self._held_back[job.id] = job
        elif job.id not in self.dependencies and job.id not in self.broken:
            self.matching.add(*job)

    def _follow(self, job: int, owner: str, status: JobStatus) -> None:
        """A job has ended: those that waited for it wait for a slot now, or in vain."""
        self._held_back.pop(job, None)
        self.broken.pop(job, None)
        followed = self.dependencies.ended(job, owner, succeeded=status is JobStatus.SUCCESS)
        for released in followed.released:
            self.matching.add(*self._held_back.pop(released))
        for failed in followed.failed:
            self._wait(self._held_back.pop(failed), Outlook(failed=failure(job, status)))

    def _apply(self, change: Change) -> None:
        row, course = change.row, change.row.course
        if course.status is JobStatus.PENDING:
            waiting = WaitingJob(row.id, row.facts.owner, row.requirement, row.priority, course.reason)
            self._wait(waiting, Outlook(change.needs))
        else:
            self.matching.remove(row.id)
        if course.status.ended:
            self._follow(row.id, row.facts.owner, course.status)
        if change.step.fate is not None:
            self.matching.release(row.facts.owner)
        held = self.leases.of_job(row.id)
        if held is None or held.attempt != course.attempt:
            return
        if change.step.fate is not None:
            self.leases.release(held.grant)
        elif change.started:
            self.leases.started(held.grant)
        held.cancelling = course.cancelling
