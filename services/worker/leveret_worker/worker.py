"""The worker between broker sessions: its slots, the grants it holds, and the tasks that serve them."""

import asyncio
from collections import Counter
from uuid import uuid4

import structlog

from leveret_proto import keys
from leveret_proto.capability import SECRETS_TAG, Capabilities
from leveret_proto.envelope import pack
from leveret_proto.messages import (
    AttemptState,
    AttemptStatus,
    Grant,
    GrantHead,
    HeldGrant,
    JobStatus,
    Reason,
    Resend,
    WorkerBeat,
)
from leveret_proto.topology import STATUS
from leveret_runtime.failpoints import failpoint
from leveret_runtime.sealing import KeyPair
from leveret_worker.attempt import Attempt
from leveret_worker.config import Config
from leveret_worker.drain import DrainOrder
from leveret_worker.guests import Executor
from leveret_worker.kept import MIB, KeptLogs
from leveret_worker.leftover import Leftover, LostBuild, sort_out
from leveret_worker.mirror import Mirror
from leveret_worker.outcome import Outcome
from leveret_worker.outlet import Outlet
from leveret_worker.resender import Resender
from leveret_worker.slots import Slots
from leveret_worker.spool import Spool

log = structlog.get_logger(__name__)

#: Seconds for handing back what still runs when the drain limit is over.
HAND_BACK_LIMIT = 20.0
#: Characters of what is told of a grant that can't be read: it stands in the job's events.
UNREADABLE_MOST = 400


class Worker:
    """One process's worth of worker: one session name, however many connections it takes."""

    def __init__(self, config: Config, executor: Executor, spool: Spool) -> None:
        self.config = config
        self.session = str(uuid4())
        self.control = Outlet("worker")
        self.bulk = Outlet("worker")
        self.slots = Slots(config.slots, lambda: str(uuid4()))
        #: Set when a beat or claim is due before its time.
        self.news = asyncio.Event()
        self._stopping = False
        self._drain = DrainOrder()
        #: Lives as long as the session: what was sealed to it can't be opened after a restart.
        self._keys = KeyPair()
        self._executor = executor
        self._spool = spool
        self._mirror = Mirror(config.source_mirrors)
        self._held: dict[str, Attempt | Leftover] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._kept = KeptLogs(spool, seconds=config.kept_logs_seconds, most=config.kept_logs_mib * MIB)
        self._resender = Resender(self._kept, self.bulk)
        self._builds = asyncio.TaskGroup()
        self._beats = 0
        self._report = False
        #: Abandoned grants whose tasks are still ending.
        self._void: set[str] = set()
        #: What was held when the worker ended: results on their way, which are not to be taken for lost.
        self._parting: tuple[HeldGrant, ...] = ()

    async def run(self, stop: asyncio.Event) -> None:
        """Own the builds. Returns when `stop` is set and they are over, or handed back after the drain limit."""
        async with self._builds:
            results, lost = sort_out(self._spool, self.control, self.bulk)
            for leftover in results:
                self._hold(leftover.grant, leftover, self._builds.create_task(leftover.run()))
            couriers = [self._builds.create_task(self._deliver_lost(build)) for build in lost]
            couriers.append(self._builds.create_task(self._resender.run()))
            couriers.append(self._builds.create_task(self._drain.see_to(lambda: self._hand_back("it was drained"))))
            proving = self._builds.create_task(self._executor.prove(self.news.set))
            await stop.wait()
            await self._wind_up()
            self._parting = self.held()
            for task in (proving, *couriers, *self._tasks.values()):
                task.cancel()

    @property
    def draining(self) -> bool:
        """Whether it takes no more jobs: it is being stopped, or was ordered to drain."""
        return self._stopping or self._drain.given

    async def _wind_up(self) -> None:
        """Claim nothing more; give running builds their time, then hand them back."""
        self._stopping = True
        self._close_slots()
        held = list(self._held.values())
        if not await _all_set([one.over for one in held], self.config.drain_limit):
            self._hand_back("it was stopped")
        # A result that could not be told stays in the spool, and the next process tells it.
        await _all_set([one.announcer.told for one in held], HAND_BACK_LIMIT)

    def _hand_back(self, why: str) -> None:
        """Stop every build and have its job run elsewhere."""
        for one in self._held.values():
            if isinstance(one, Attempt):
                one.stop(Outcome(None, Reason.HANDED_BACK, f"worker {self.config.name} gave it back: {why}"))

    def held(self) -> tuple[HeldGrant, ...]:
        return tuple(held.held() for held in self._held.values())

    def states(self) -> Counter[str]:
        """How many of the grants held are in which state."""
        return Counter(str(held.state) for held in self.held())

    @property
    def unconfirmed(self) -> int:
        """Bytes of logs and artifacts that the broker has not taken yet, of all builds of this process."""
        return sum(held.unconfirmed for held in self._held.values() if isinstance(held, Attempt))

    @property
    def status(self) -> str:
        """What it does, in a line for people."""
        jobs = ", ".join(str(held.grant.facts.job) for held in self._held.values())
        line = f"{self.slots.busy} of {self.slots.count} slots in use" + (f"; jobs {jobs}" if jobs else "")
        return f"draining, {line}" if self.draining else line

    def beat(self, *, closing: bool = False) -> WorkerBeat:
        """Make the next beat."""
        self._beats += 1
        return WorkerBeat(
            worker=self.config.name,
            session=self.session,
            spool=self._spool.identity,
            beat=self._beats,
            capabilities=self._offer(),
            slots=self.slots.count,
            tokens=self.slots.tokens,
            held=self._parting if closing else self.held(),
            draining=self.draining,
            drained=self._drain.given,
            closing=closing,
            public_key=self._keys.public_key,
            notes=self._executor.notes,
        )

    def _offer(self) -> Capabilities:
        """What the executor has proved, and that secrets can be sealed to this session."""
        proved = self._executor.offer()
        return proved.model_copy(update={"tags": (*proved.tags, SECRETS_TAG)})

    # --- what the dispatcher says ---

    def on_grant(self, grant: Grant) -> AttemptStatus | None:
        """Begin the granted attempt, or repeat the last status of one that is held.

        A grant on a token that is not free here never runs: it is given back (the returned status).
        """
        held = self._held.get(grant.grant)
        if held is not None:
            held.announcer.repeat()
            return None
        if not self.slots.take(grant.token):
            log.warning("grant on a token that is not free, handed back", job=grant.facts.job)
            if self.draining:
                return self._handed_back(grant, Reason.HANDED_BACK, "the worker takes no more jobs")
            return self._handed_back(grant, Reason.WORKER_FAULT, "the slot token was not free")
        spool = self._spool.grant(grant.grant)
        try:
            spool.create(grant)
        except OSError as error:
            log.error("the spool can't take a grant", reason=str(error))
            self._rest()
            return self._handed_back(grant, Reason.WORKER_FAULT, f"the worker's spool can't take it: {error.strerror}")
        failpoint("worker.grant.spooled")
        attempt = Attempt(grant, spool, self.config, self.control, self.bulk, self._keys)
        log.info("granted", job=grant.facts.job, attempt=grant.attempt)
        self._hold(grant, attempt, self._builds.create_task(attempt.run(self._executor, self._mirror, self._slot_free)))
        return None

    def on_unreadable_grant(self, head: GrantHead, why: str) -> AttemptStatus:
        """A grant that this version of the worker can't read is given back (the returned status)."""
        if self.slots.take(head.token):
            self._rest()
        return self._handed_back(head, Reason.WORKER_FAULT, f"the worker can't read it: {why}"[:UNREADABLE_MOST])

    async def send_status(self, status: AttemptStatus) -> None:
        """Send a status of a grant that is not held."""
        await self.control.send(STATUS, keys.status(status.worker, status.job, status.attempt), pack(status))

    def report_now(self) -> None:
        """A whole beat is wanted at once."""
        self._report = True
        self.news.set()

    def take_report(self) -> bool:
        """Whether a whole beat was asked for since the last look."""
        wanted, self._report = self._report, False
        return wanted

    def on_drain(self, limit: float | None) -> None:
        """Claim nothing more; what still runs after `limit` seconds (None: as configured) is handed back."""
        limit = self.config.drain_limit if limit is None else limit
        log.info("drained", seconds=limit, running=len(self._held))
        self._drain.give(limit)
        self._close_slots()

    def on_resume(self) -> None:
        """Claim again, unless the worker is being stopped."""
        log.info("resumed")
        self._drain.revoke()
        if not self._stopping:
            self.slots.open()
        self.news.set()

    def _close_slots(self) -> None:
        self.slots.close()
        self.news.set()

    def on_settle(self, name: str) -> None:
        """The result of grant `name` has arrived: it may be forgotten."""
        if held := self._held.get(name):
            held.announcer.settle()

    def on_resend(self, wanted: Resend) -> None:
        """Logsink misses parts of a log."""
        self._resender.ask(wanted)

    def on_cancel(self, name: str, reason: Reason) -> None:
        """Stop the build of grant `name`; it ends `cancelled`."""
        held = self._held.get(name)
        if isinstance(held, Attempt):
            held.stop(Outcome(JobStatus.CANCELLED, reason))

    def on_abandon(self, name: str, why: str) -> None:
        """The grant is void: stop its machine, say nothing more under it, forget it."""
        task = self._tasks.get(name)
        if task is not None:
            log.warning("abandoned", grant=name, why=why)
            self._void.add(name)
            task.cancel()

    def _hold(self, grant: Grant, held: Attempt | Leftover, task: asyncio.Task[None]) -> None:
        self._held[grant.grant] = held
        self._tasks[grant.grant] = task
        self._kept.hold(grant, held.digests)
        task.add_done_callback(lambda done: self._let_go(grant, settled=not done.cancelled()))

    def _let_go(self, grant: Grant, *, settled: bool) -> None:
        """Be done with a grant; its spool stays where the next process still has to deliver from it."""
        name = grant.grant
        del self._held[name]
        del self._tasks[name]
        if name in self._void:
            self._void.discard(name)
            self._kept.forget(grant)
        elif settled:
            self._kept.settle(grant)

    async def _deliver_lost(self, build: LostBuild) -> None:
        self._kept.hold(build.grant, tuple)
        await build.run()
        self._kept.settle(build.grant)

    def _slot_free(self) -> None:
        self.slots.free()
        self.news.set()

    def _rest(self) -> None:
        """Free the slot of a grant that could not be taken, for the next beat to name: the job tries others first."""
        self.slots.free()

    def _handed_back(self, grant: Grant | GrantHead, reason: Reason, why: str) -> AttemptStatus:
        """The only word on a grant that is not held."""
        return AttemptStatus(
            grant=grant.grant,
            job=grant.facts.job,
            attempt=grant.attempt,
            worker=self.config.name,
            session=self.session,
            seq=1,
            state=AttemptState.ENDED,
            reason=reason,
            detail=why,
        )


async def _all_set(events: list[asyncio.Event], seconds: float) -> bool:
    """Wait until all `events` are set, or `seconds` are over; say which."""
    try:
        async with asyncio.timeout(seconds):
            for event in events:
                await event.wait()
    except TimeoutError:
        return False
    return True
