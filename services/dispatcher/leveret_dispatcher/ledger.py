"""Writes what `lifecycle` decides: a job's new state, its attempt's fate and its numbered events, all or nothing."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from leveret_dispatcher import dependency_store, events, grouping, lifecycle, store
from leveret_dispatcher.dependencies import outlook
from leveret_dispatcher.dependency_store import Need
from leveret_dispatcher.events import Links
from leveret_dispatcher.lifecycle import Fate, Input, JobMoved, Snapshot, Step
from leveret_dispatcher.store import JobRow, NewJob
from leveret_proto.manifest import Manifest
from leveret_proto.messages import Artifact, AttemptStatus, JobStatus, Message, Reason, Timings
from leveret_proto.topology import NOTIFY, RECORD
from leveret_runtime import outbox

if TYPE_CHECKING:
    from leveret_runtime.db import Connection


@dataclass(frozen=True, slots=True)
class Result:
    """What a snapshot brings besides the states: kept when it ends the attempt."""

    artifacts: tuple[Artifact, ...]
    timings: Timings


@dataclass(frozen=True, slots=True)
class Change:
    """A job's step, and the job after it."""

    step: Step
    row: JobRow
    #: For a job just accepted: the jobs that must succeed first.
    needs: tuple[int, ...] = ()

    @property
    def started(self) -> bool:
        return _starts(self.step)


class _Letter(NamedTuple):
    """A row of the outbox."""

    job: int
    exchange: str
    key: str
    message: Message


class Transaction:
    """One transaction of the leader, and what it has read and changed so far.

    A change is true in memory at once (`apply`): a transaction that fails ends the term, and what is in memory with it.
    What is told leaves for the outbox in one go, right before the commit. `after` is called once it has committed.
    """

    def __init__(self, on: "Connection", at: datetime, links: Links, apply: Callable[[Change], None]) -> None:
        self.on = on
        self.at = at
        self.after: list[Callable[[], None]] = []
        #: All that this transaction has changed so far.
        self.changes: list[Change] = []
        self._links = links
        self._apply = apply
        self._rows: dict[int, JobRow] = {}
        self._manifests: dict[int, Manifest] = {}
        self._told: list[Change | _Letter] = []

    async def jobs(self, ids: Iterable[int]) -> dict[int, JobRow]:
        """Give the rows of those of `ids` that there are, as this transaction has left them, the lowest id first."""
        wanted = sorted(set(ids))
        unread = [id_ for id_ in wanted if id_ not in self._rows]
        if unread:
            self._rows |= await store.read_jobs(self.on, unread)
        return {id_: self._rows[id_] for id_ in wanted if id_ in self._rows}

    async def manifests(self, ids: Iterable[int]) -> dict[int, Manifest]:
        """Give the manifests of jobs."""
        wanted = set(ids)
        unread = wanted - self._manifests.keys()
        if unread:
            self._manifests |= await store.manifests(self.on, unread)
        return {id_: self._manifests[id_] for id_ in wanted}

    async def accept(self, jobs: Sequence[NewJob]) -> None:
        """Begin the courses of those of `jobs` that are new."""
        inserted = await store.insert_jobs(self.on, jobs)
        # by id: the same job may be twice in one batch, and one that others need comes before them
        new = {job.ready.facts.job: job for job in jobs if job.ready.facts.job in inserted}
        if not new:
            return
        self._manifests |= {id_: job.ready.manifest for id_, job in new.items()}
        cancelled = await store.take_cancellations(self.on, [(id_, job.ready.facts.owner) for id_, job in new.items()])
        needs = await self._note_needs(new)
        changes: dict[int, Change] = {}
        for id_, job in sorted(new.items()):
            ready = job.ready
            names = tuple(task.name for task in ready.manifest.tasks)
            expects = outlook({need.needs: _status_of(need, changes) for need in needs.get(id_, ())})
            step = lifecycle.accept(names, cancelled=id_ in cancelled, waits_for=expects.detail, failed=expects.failed)
            row = JobRow(
                id_, ready.facts, ready.requirement, step.course, job.time_limit, (), None, ready.submitted_at,
                None, None, ready.priority,
            )  # fmt: skip
            changes[id_] = Change(step, _after(row, step, None, self.at), expects.waits_for)
        await grouping.join(self, [change.row.facts for change in changes.values()])
        moved = [change.row for change in changes.values() if change.row.course.reason is not Reason.SUBMITTED]
        if moved:  # the others are as they were inserted
            await store.write_jobs(self.on, moved)
        await self._note(list(changes.values()))

    async def _note_needs(self, new: Mapping[int, NewJob]) -> dict[int, list[Need]]:
        """Note which jobs the new ones need; give those that have not succeeded."""
        depending = {id_: job.ready.depends_on for id_, job in new.items() if job.ready.depends_on}
        needs: dict[int, list[Need]] = {}
        if depending:
            await dependency_store.insert(self.on, depending)
            for need in await dependency_store.unmet(self.on, depending):
                needs.setdefault(need.job, []).append(need)
        return needs

    async def advance(self, rows: Sequence[JobRow], inputs: Mapping[int, Input], results: Mapping[int, Result]) -> None:
        """Take one input for each of `rows`; a job whose input moves nothing is left alone."""
        changes = []
        for row in rows:
            step = lifecycle.step(row.course, inputs[row.id])
            if step.course != row.course or step.told or step.fate is not None:
                changes.append(Change(step, _after(row, step, results.get(row.id), self.at)))
        await self._write(changes)

    def tell(self, exchange: str, key: str, message: Message, *, job: int = 0) -> None:
        """Tell a message without a number; with `job`, it leaves behind what is told of that one."""
        self._told.append(_Letter(job, exchange, key, message))

    async def flush(self) -> None:
        """Number what is told, and put it into the outbox in the order it was told in."""
        counts = Counter[int]()
        for told in self._told:
            if isinstance(told, Change):
                counts[told.row.id] += len(told.step.told)
        seqs = await outbox.number(self.on, counts) if counts else {}
        letters: list[_Letter] = []
        for told in self._told:
            if isinstance(told, _Letter):
                letters.append(told)
                continue
            letters += self._letters(told, seqs[told.row.id])
            seqs[told.row.id] += len(told.step.told)
        if letters:
            await outbox.put_all(self.on, letters)

    def _letters(self, change: Change, first_seq: int) -> Iterator[_Letter]:
        row = change.row
        for key, message in events.of_step(row, change.step, first_seq, self.at, self._links):
            yield _Letter(row.id, RECORD, key, message)
        if row.course.status.ended and self._manifests[row.id].triggers:
            message = events.ended_job(row, self._manifests[row.id], self.at, self._links)
            yield _Letter(row.id, NOTIFY, str(row.id), message)

    async def _write(self, changes: list[Change]) -> None:
        if not changes:
            return
        ended = [change.row.id for change in changes if change.row.course.status.ended]
        manifests = await self.manifests(ended)
        changes = [self._with_links(change, manifests.get(change.row.id)) for change in changes]
        await store.write_jobs(self.on, [change.row for change in changes])
        started = [(c.row.id, c.row.course.attempt) for c in changes if c.started]
        if started:
            await store.start_attempts(self.on, started)
        ends = [(c.row.id, c.row.course.attempt, c.step.fate) for c in changes if c.step.fate is not None]
        if ends:
            await store.end_attempts(self.on, ends)
        await self._note(changes)

    async def _note(self, changes: list[Change]) -> None:
        """Take up changes that have been written."""
        self._rows |= {change.row.id: change.row for change in changes}
        self._told += [change for change in changes if change.step.told]
        self.changes += changes
        for change in changes:
            self._apply(change)
        grouped = [c.row for c in changes if c.row.course.status.ended and c.row.facts.group is not None]
        if grouped:
            await grouping.after_ends(self, grouped)

    def _with_links(self, change: Change, manifest: Manifest | None) -> Change:
        if manifest is None or not change.row.artifacts:
            return change
        kept = self._links.artifacts(change.row, change.row.artifacts, manifest)
        return replace(change, row=replace(change.row, artifacts=kept))


def _status_of(need: Need, begun: Mapping[int, Change]) -> JobStatus | None:
    """Say how a needed job stands that may be `begun` in this very transaction."""
    known = begun.get(need.needs) if need.status is not None else None
    return known.row.course.status if known is not None else need.status


def _starts(step: Step) -> bool:
    return any(isinstance(told, JobMoved) and told.course.status is JobStatus.RUNNING for told in step.told)


def _after(row: JobRow, step: Step, result: Result | None, at: datetime) -> JobRow:
    """Give the row as the step leaves it."""
    course = step.course
    started_at = None if course.attempt > row.course.attempt else row.started_at
    if _starts(step):
        started_at = at
    ended = course.status.ended
    keep = ended and result is not None and step.fate is Fate.ENDED
    return replace(
        row,
        course=course,
        started_at=started_at,
        ended_at=at if ended else None,
        artifacts=result.artifacts if keep and result else (),
        timings=result.timings if keep and result else None,
    )


def snapshot_of(status: AttemptStatus) -> tuple[Snapshot, Result]:
    """Take an attempt's status apart: what moves the job, and what its end brings."""
    snapshot = Snapshot(status.state, status.tasks, status.result, status.reason, store.storable(status.detail))
    return snapshot, Result(status.artifacts, status.timings)
