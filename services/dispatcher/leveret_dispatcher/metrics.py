"""What the dispatcher counts, and what the leader samples: the backlog, its workers, the dead-letter desk."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily

from leveret_dispatcher import dead_store, store
from leveret_dispatcher.ledger import Change
from leveret_dispatcher.lifecycle import JobMoved
from leveret_dispatcher.store import WaitingJobs
from leveret_proto.messages import JobStatus
from leveret_runtime.metrics import LONG, QUICK, REGISTRY, Metric, gauge, sampled
from leveret_runtime.outbox import lag

if TYPE_CHECKING:
    from leveret_dispatcher.desk import Desk

#: Kinds of waiting jobs told apart; submitters choose images, tags and sizes, so there may be any number.
MOST_KINDS = 100

EPOCH = Gauge(
    "leveret_dispatcher_epoch", "The epoch under which this process leads; 0: it stands by.", registry=REGISTRY
)
GRANT_SECONDS = Histogram(
    "leveret_dispatcher_grant_seconds",
    "From the match of a job and a free slot to the broker's confirm of the grant.",
    buckets=QUICK,
    registry=REGISTRY,
)
WAIT_SECONDS = Histogram(
    "leveret_dispatcher_wait_seconds", "From a job's submission to its first grant.", buckets=LONG, registry=REGISTRY
)
JOBS_ENDED = Counter(
    "leveret_dispatcher_jobs_ended", "Jobs that have ended, by status and reason.", ["status", "reason"],
    registry=REGISTRY,
)  # fmt: skip
ATTEMPTS_ENDED = Counter(
    "leveret_dispatcher_attempts_ended",
    "Attempts that are over, by what became of them; `lost` are leases that ran out, and restarted workers.",
    ["fate"],
    registry=REGISTRY,
)
SESSIONS_LOST = Counter(
    "leveret_dispatcher_sessions_lost", "Sessions of workers that were not heard any more.", registry=REGISTRY
)
LETTERS_FILED = Counter(
    "leveret_dispatcher_dead_letters_filed", "Dead letters filed, by who gave them up: `service` or `broker`.", ["by"],
    registry=REGISTRY,
)  # fmt: skip


def count(changes: Sequence[Change], at: datetime) -> None:
    """Count what a transaction of the time `at` has changed."""
    for change in changes:
        row, course = change.row, change.row.course
        if change.step.fate is not None:
            ATTEMPTS_ENDED.labels(change.step.fate).inc()
        if not any(isinstance(told, JobMoved) for told in change.step.told):
            continue
        if course.status.ended:
            JOBS_ENDED.labels(course.status, course.reason).inc()
        elif course.status is JobStatus.QUEUED and course.attempt == 1:
            WAIT_SECONDS.observe(max(0.0, (at - row.submitted_at).total_seconds()))


@asynccontextmanager
async def leading(desk: "Desk") -> AsyncIterator[None]:
    """Show what the leader sees, for the time of the block."""
    EPOCH.set(desk.leadership.epoch)
    try:
        with sampled(lag(desk.database)), sampled(lambda: sample(desk)):
            yield
    finally:
        EPOCH.set(0)


async def sample(desk: "Desk") -> list[Metric]:
    """Look at what the leader has before it. Raises DatabaseAway."""
    async with desk.database.connection() as on:
        backlog = await store.backlog(on, MOST_KINDS)
        dead = await dead_store.sums(on)
    return [
        *of_backlog(backlog),
        gauge("leveret_dispatcher_attempts", "Attempts granted or running.", len(desk.leases)),
        *_of_workers(desk),
        gauge("leveret_dispatcher_dead_letters", "Letters on the dead-letter desk.", dead.letters),
    ]


def of_backlog(kinds: Sequence[WaitingJobs]) -> list[Metric]:
    """Tell of waiting jobs by requirement and reason. Those of the rarest kinds are one, with `other` for an image."""
    labels = ["arch", "image", "kvm", "memory_mib", "cpus", "tags", "reason"]
    waiting = GaugeMetricFamily(
        "leveret_dispatcher_waiting_jobs", "Jobs that wait, by requirement and reason.", labels=labels
    )
    oldest = GaugeMetricFamily(
        "leveret_dispatcher_oldest_waiting_seconds", "Since when the oldest of them was submitted.", labels=labels
    )
    for kind in kinds:
        values = _labels(kind)
        waiting.add_metric(values, kind.jobs)
        oldest.add_metric(values, kind.oldest)
    return [waiting, oldest]


def _labels(kind: WaitingJobs) -> list[str]:
    needed = kind.requirement
    if needed is None:
        return ["", "other", "", "", "", "", ""]
    return [
        needed.arch, needed.image, "kvm" if needed.kvm else "any", str(needed.memory_mib), str(needed.cpus),
        ",".join(sorted(needed.tags)), kind.reason or "",
    ]  # fmt: skip


def _of_workers(desk: "Desk") -> list[Metric]:
    slots = GaugeMetricFamily("leveret_dispatcher_worker_slots", "Slots of each live worker.", labels=["worker"])
    free = GaugeMetricFamily("leveret_dispatcher_worker_free_slots", "Those that are free.", labels=["worker"])
    draining = GaugeMetricFamily("leveret_dispatcher_worker_draining", "1 where it takes no jobs.", labels=["worker"])
    for name, session in sorted(desk.sessions.items()):
        slots.add_metric([name], session.slots)
        free.add_metric([name], len(session.free))
        draining.add_metric([name], session.draining)
    return [slots, free, draining]
