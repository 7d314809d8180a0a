"""The whole of dispatching without its I/O (lifecycle, matching, dependencies, leases) against a model of plain sets.

The machine stands in for broker, database and workers: it keeps the rows, takes the leader's place in turns, and does
what may happen in any order. The model knows the rules as people are told them, and looks at everything every time.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from pydantic import SecretStr

from leveret_dispatcher import lifecycle
from leveret_dispatcher.config import Config, OwnerPolicy
from leveret_dispatcher.dependencies import outlook
from leveret_dispatcher.desk import Desk
from leveret_dispatcher.ledger import Change
from leveret_dispatcher.lifecycle import (
    MOST_LOSSES,
    CancelAsked,
    DeadlinePassed,
    DependencyFailed,
    Granted,
    Input,
    JobMoved,
    Lost,
    Returned,
    Snapshot,
    Waits,
)
from leveret_dispatcher.matching import Session
from leveret_dispatcher.store import JobRow, WaitingJob
from leveret_proto.base import JobFacts
from leveret_proto.capability import Capabilities, serves
from leveret_proto.messages import AttemptState, JobStatus, Reason
from tests.support.capabilities import offers, wants

OWNERS = ("~alice", "~bob")
LIMIT = 2  # bob's
ENDS = (JobStatus.SUCCESS, JobStatus.FAILED, JobStatus.TIMEOUT, JobStatus.CANCELLED)
CONFIG = Config(amqp_url=SecretStr("amqp://"), database_url=SecretStr(""), owners={"~bob": OwnerPolicy(running=LIMIT)})
FAILURES = set(ENDS) - {JobStatus.SUCCESS}
NOTHING = cast(Any, None)
PENDING, QUEUED, RUNNING = JobStatus.PENDING, JobStatus.QUEUED, JobStatus.RUNNING


@dataclass
class Job:
    """A job as the model has it."""

    id: int
    owner: str
    image: str
    priority: int
    needs: frozenset[int]
    status: JobStatus = PENDING
    attempts: int = 0
    losses: int = 0
    cancelling: bool = False
    worker: str = ""
    ends: int = 0


@dataclass
class Model:
    """The jobs, and what the rules make of them."""

    jobs: dict[int, Job] = field(default_factory=dict)

    def of(self, *statuses: JobStatus) -> list[int]:
        return [job.id for job in self.jobs.values() if job.status in statuses]

    def needed(self, job: Job) -> list[JobStatus | None]:
        """How the jobs that `job` needs stand; another owner's is not there."""
        mine = {other.id: other.status for other in self.jobs.values() if other.owner == job.owner}
        return [mine.get(needed) for needed in job.needs]

    def in_vain(self, job: Job) -> bool:
        return any(
            status is not None and status.ended and status is not JobStatus.SUCCESS for status in self.needed(job)
        )

    def ready(self, job: Job) -> bool:
        return job.status is PENDING and all(status is JobStatus.SUCCESS for status in self.needed(job))

    def running(self, owner: str) -> int:
        return sum(job.owner == owner and job.status in (QUEUED, RUNNING) for job in self.jobs.values())

    def may_run(self, one: Session, *, also: Counter[str]) -> list[Job]:
        """Give the jobs that a free slot of the session could be given; `also`: matched, and not granted yet."""
        return [
            job
            for job in self.jobs.values()
            if self.ready(job)
            and serves(one.offer, wants(job.image))
            and (job.owner != "~bob" or self.running("~bob") + also["~bob"] < LIMIT)
        ]

    def end(self, job: Job, status: JobStatus) -> None:
        job.status = status
        job.ends += 1

    def wait_again(self, job: Job) -> None:
        if job.cancelling:
            self.end(job, JobStatus.CANCELLED)
        else:
            job.status = PENDING


class DispatchMachine(RuleBasedStateMachine):
    """Anything may happen; the rows, the index in memory and the model must agree all the time."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.rows: dict[int, JobRow] = {}
        self.sessions: dict[str, Session] = {}
        self.tokens = 0
        self.spent: set[str] = set()
        self.ends_told: Counter[int] = Counter()
        self.now = 0.0

    @initialize()
    def lead(self) -> None:
        self.desk = Desk(CONFIG, NOTHING, NOTHING, NOTHING, lambda: None)

    # What the leader's transactions do, without the database

    def write(self, change: Change) -> None:
        self.rows[change.row.id] = change.row
        told = [one.course for one in change.step.told if isinstance(one, JobMoved)]
        self.ends_told[change.row.id] += sum(course.status.ended for course in told)
        self.desk._apply(change)

    def advance(self, job: int, happened: Input) -> None:
        row = self.rows[job]
        step = lifecycle.step(row.course, happened)
        self.write(Change(step, replace(row, course=step.course)))

    def statuses(self, job: int, needs: frozenset[int]) -> dict[int, JobStatus | None]:
        owner = self.model.jobs[job].owner
        rows = {needed: self.rows.get(needed) for needed in sorted(needs)}
        return {
            needed: row.course.status if row is not None and row.facts.owner == owner else None
            for needed, row in rows.items()
        }

    def a_job(self, data: st.DataObject, *statuses: JobStatus) -> Job | None:
        jobs = self.model.of(*statuses)
        return self.model.jobs[data.draw(st.sampled_from(jobs))] if jobs else None

    # Jobs

    @rule(
        owner=st.sampled_from(OWNERS),
        image=st.sampled_from("ab"),
        priority=st.integers(-1, 1),
        needs=st.frozensets(st.integers(1, 30), max_size=2),
        cancelled=st.sampled_from((False, False, False, True)),
    )
    def submit(self, owner: str, image: str, priority: int, needs: frozenset[int], cancelled: bool) -> None:
        number = len(self.model.jobs) + 1
        job = Job(number, owner, image, priority, frozenset(need for need in needs if need < number))
        self.model.jobs[number] = job
        if cancelled or self.model.in_vain(job):
            self.model.end(job, JobStatus.CANCELLED)
        expects = outlook(self.statuses(number, job.needs))
        step = lifecycle.accept(("build",), cancelled=cancelled, waits_for=expects.detail, failed=expects.failed)
        facts = JobFacts(job=number, owner=owner, project="p", submission=f"m{number}", link="x" * 20)
        at = datetime.now(UTC)
        row = JobRow(number, facts, wants(image), step.course, 60.0, (), None, at, None, None, priority)
        self.write(Change(step, row, expects.waits_for))

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = self.a_job(data, *JobStatus)
        if job is None:
            return
        self.advance(job.id, CancelAsked())
        if job.status is PENDING:
            self.model.end(job, JobStatus.CANCELLED)
        job.cancelling = True

    @rule(data=st.data(), priority=st.integers(-2, 2))
    def prioritize(self, data: st.DataObject, priority: int) -> None:
        job = self.a_job(data, PENDING)
        if job is not None:
            job.priority = priority
            self.rows[job.id] = replace(self.rows[job.id], priority=priority)
            self.desk.prioritize(job.id, priority)

    @rule(data=st.data())
    def deadline_passes(self, data: st.DataObject) -> None:
        job = self.a_job(data, PENDING)
        if job is not None:
            self.advance(job.id, DeadlinePassed("late"))
            if not job.attempts:
                self.model.end(job, JobStatus.TIMEOUT)

    @rule()
    def end_broken(self) -> None:
        for job, why in list(self.desk.broken.items()):
            self.advance(job, DependencyFailed(why))
            assert self.model.in_vain(self.model.jobs[job])
            self.model.end(self.model.jobs[job], JobStatus.CANCELLED)

    # Workers

    @rule(name=st.sampled_from("xy"), images=st.sets(st.sampled_from("ab")), draining=st.booleans())
    def worker_says_what_it_offers(self, name: str, images: set[str], draining: bool) -> None:
        new = name not in self.sessions
        one = self.sessions.setdefault(name, Session(name, f"session-{name}", "spool", Capabilities(), 4))
        one.offer, one.draining = offers(*sorted(images)), draining
        (self.desk.seat if new else self.desk.matching.seat)(one)

    @rule(name=st.sampled_from("xy"), count=st.integers(0, 3))
    def beat(self, name: str, count: int) -> None:
        if name in self.sessions:
            self.tokens += count
            listed = [f"t{self.tokens - n}" for n in range(count)]
            self.sessions[name].take_beat(() if self.sessions[name].draining else listed)
            self.desk.matching.freed(self.sessions[name])

    @rule(name=st.sampled_from("xy"))
    def worker_is_lost(self, name: str) -> None:
        if name in self.sessions:
            for held in self.desk.leases.of_worker(name):
                self.lose(self.model.jobs[held.job])
            self.desk.unseat(self.sessions.pop(name))

    # Attempts

    @rule(most=st.integers(1, 4), unused=st.sampled_from((False, False, True)))
    def grant(self, most: int, unused: bool) -> None:
        matches = self.desk.matching.match(most)
        matched: Counter[str] = Counter()
        for match in matches:
            job = self.model.jobs[match.job]
            assert job in self.model.may_run(match.session, also=matched) and match.token not in self.spent
            rivals = [other for other in self.model.may_run(match.session, also=matched) if other.owner == job.owner]
            assert all(
                (-job.priority, job.id) <= (-other.priority, other.id)
                for other in rivals
                if other.id not in {earlier.job for earlier in matches[: matches.index(match)]}
            )
            matched[job.owner] += 1
        if len(matches) < most:
            taken = {match.job for match in matches}
            for one in self.sessions.values():
                left = [job for job in self.model.may_run(one, also=matched) if job.id not in taken]
                assert one.draining or not one.free or not left
        for match in matches:
            self.take_back(match) if unused else self.give(match)

    def give(self, match: Any) -> None:
        self.spent.add(match.token)
        job = self.model.jobs[match.job]
        self.advance(match.job, Granted(match.session.worker))
        self.desk.leases.hold(f"{match.job}-{job.attempts}", match.job, job.attempts + 1, match.session.worker, 60.0)
        job.status, job.worker = QUEUED, match.session.worker
        job.attempts += 1

    def take_back(self, match: Any) -> None:
        row = self.rows[match.job]
        self.desk.matching.release(match.owner)
        self.desk.matching.add(match.job, match.owner, match.requirement, row.priority, row.course.reason)
        match.session.give_back(match.token)
        self.desk.matching.freed(match.session)

    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        job = self.a_job(data, QUEUED)
        if job is not None:
            self.advance(job.id, Snapshot(AttemptState.RUNNING))
            job.status = RUNNING

    @rule(data=st.data(), result=st.sampled_from(ENDS))
    def end(self, data: st.DataObject, result: JobStatus) -> None:
        job = self.a_job(data, QUEUED, RUNNING)
        if job is not None:
            self.advance(job.id, Snapshot(AttemptState.ENDED, result=result))
            self.model.end(job, result)

    @rule(data=st.data())
    def hand_back(self, data: st.DataObject) -> None:
        job = self.a_job(data, QUEUED, RUNNING)
        if job is not None:
            self.advance(job.id, Snapshot(AttemptState.ENDED))
            self.model.wait_again(job)

    @rule(data=st.data())
    def lease_runs_out(self, data: st.DataObject) -> None:
        job = self.a_job(data, QUEUED, RUNNING)
        if job is not None:
            self.lose(job)

    def lose(self, job: Job) -> None:
        self.advance(job.id, Lost("gone"))
        job.losses += job.status is RUNNING
        if not job.cancelling and job.losses >= MOST_LOSSES:
            self.model.end(job, JobStatus.FAILED)
        else:
            self.model.wait_again(job)

    @rule(data=st.data())
    def grant_comes_back(self, data: st.DataObject) -> None:
        job = self.a_job(data, QUEUED)
        if job is not None:
            if job.worker in self.sessions:
                self.desk.matching.withdraw(self.sessions[job.worker], wants(job.image))
                self.desk.matching.seat(self.sessions[job.worker])  # its next beat offers it again
            self.advance(job.id, Returned("unbound"))
            self.model.wait_again(job)

    # The leader

    @rule(seconds=st.floats(0, 10))
    def tell_reasons(self, seconds: float) -> None:
        self.now += seconds
        for job, reason, detail in self.desk.matching.untold(100, self.now):
            model = self.model.jobs[job]
            assert self.model.ready(model)
            served = any(serves(one.offer, wants(model.image)) and not one.draining for one in self.sessions.values())
            full = model.owner == "~bob" and self.model.running("~bob") >= LIMIT
            expected = (Reason.LIMIT if full else Reason.BUSY) if served else Reason.NO_WORKER
            assert reason is expected and self.rows[job].course.reason is not reason
            self.advance(job, Waits(reason, detail))

    @rule()
    def another_leads(self) -> None:
        """A new leader knows what the rows say, and nothing else."""
        self.lead()
        for row in self.rows.values():
            course, owner = row.course, row.facts.owner
            if course.status is PENDING:
                waiting = WaitingJob(row.id, owner, row.requirement, row.priority, course.reason)
                self.desk._wait(waiting, outlook(self.statuses(row.id, self.model.jobs[row.id].needs)))
            elif not course.status.ended:
                self.desk.matching.hold(owner)
                self.desk.leases.hold(f"{row.id}-{course.attempt}", row.id, course.attempt, course.worker or "", 60.0)
        for one in self.sessions.values():
            one.free.clear()
            one.lines.clear()
            self.desk.seat(one)

    @invariant()
    def rows_and_model_agree(self) -> None:
        for job in self.model.jobs.values():
            course = self.rows[job.id].course
            assert (course.status, course.attempt, course.losses) == (job.status, job.attempts, job.losses)
            assert self.ends_told[job.id] == job.ends == (1 if job.status.ended else 0)

    @invariant()
    def every_waiting_job_waits_in_one_place(self) -> None:
        waiting = [self.model.jobs[job] for job in self.model.of(PENDING)]
        ready = {job.id for job in waiting if self.model.ready(job)}
        broken = {job.id for job in waiting if self.model.in_vain(job)}
        assert len(self.desk.matching) == len(ready)
        assert all(self.desk.matching.place(job) is not None for job in ready)
        assert self.desk.broken.keys() == broken
        assert len(self.desk.dependencies) == len(waiting) - len(ready) - len(broken)

    @invariant()
    def nobody_runs_more_than_allowed(self) -> None:
        assert self.model.running("~bob") <= LIMIT
        for job in self.model.jobs.values():
            held = self.desk.leases.of_job(job.id)
            assert (held is not None) == (job.status in (QUEUED, RUNNING))

    def teardown(self) -> None:
        """With a worker for everything and builds that end, whatever can run has ended soon."""
        if not hasattr(self, "desk"):
            return
        one = Session("z", "session-z", "spool", offers("a", "b"), 4)
        self.sessions["z"] = one
        self.desk.seat(one)
        for _ in range(4 * len(self.model.jobs) + 4):
            self.beat("z", 3)
            self.grant(4, unused=False)
            for job in self.model.of(QUEUED, RUNNING):
                self.advance(job, Snapshot(AttemptState.ENDED, result=JobStatus.SUCCESS))
                self.model.end(self.model.jobs[job], JobStatus.SUCCESS)
            self.end_broken()
        left = [self.model.jobs[job] for job in self.model.of(PENDING)]
        assert all(
            None in self.model.needed(job) or any(n in self.model.of(PENDING) for n in job.needs) for job in left
        )
        self.rows_and_model_agree()


TestDispatchMachine = DispatchMachine.TestCase
TestDispatchMachine.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
