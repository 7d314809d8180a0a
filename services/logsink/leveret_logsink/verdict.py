"""What follows from what is known: the logs an attempt owes; whether one is proven, given up or waited for. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from leveret_logsink.assembly import Held
from leveret_proto.messages import MAX_MISSING, SETUP_LOG, JobEvent, JobStatus, MissingRange, Reason, TaskState

State = Literal["open", "sealed", "gap"]

#: Ends that only an attempt whose guest came up can come to, even where no `running` was seen in between.
_STARTED = frozenset({Reason.COMPLETED, Reason.TASK_FAILED, Reason.SETUP_FAILED, Reason.ARTIFACT_FAILED})


@dataclass(frozen=True, slots=True)
class AttemptNews:
    """What a job event says of an attempt."""

    attempt: int
    worker: str | None
    #: Its guest came up: there is a setup log.
    started: bool
    ended: bool
    #: Tasks that ran, so that each has a log.
    ran: tuple[str, ...]


def news(event: JobEvent) -> AttemptNews | None:
    """Read what `event` says of its attempt; None where it has none.

    An attempt is over at the job's end, and when the job waits again (lost, handed back).
    """
    if event.attempt is None:
        return None
    idle = (TaskState.SKIPPED, TaskState.PENDING)
    ran = tuple(task.name for task in event.tasks if task.state not in idle)
    booted = event.timings is not None and event.timings.boot is not None
    started = event.status is JobStatus.RUNNING or bool(ran) or booted or event.reason in _STARTED
    ended = event.status.ended or event.status is JobStatus.PENDING
    return AttemptNews(event.attempt, event.worker, started, ended, ran)


def expected(started: bool, ran: Collection[str]) -> list[str]:
    """Give the logs that an ended attempt owes: of its setup, and of every task that ran."""
    owed = set(ran)
    if started:
        owed.add(SETUP_LOG)
    return sorted(owed)


def proven(owed: Collection[str], logs: Mapping[str, State]) -> bool:
    """Whether there is nothing left to judge: every log that is owed has begun, and all that have are sealed."""
    return logs.keys() >= set(owed) and all(state == "sealed" for state in logs.values())


class Verdict(Enum):
    """What is to be done about a stream."""

    WAIT = "wait"
    PROVE = "prove"
    GAP = "gap"
    DONE = "done"


def judge(held: Held, state: State, mismatch: bool, due: bool) -> Verdict:
    """Decide about a stream.

    Args:
        held: what is stored.
        state: what has been said of it in public.
        mismatch: its bytes have been hashed and are not what the end promised.
        due: its attempt ended so long ago that nothing more is waited for.
    """
    if state == "sealed":
        return Verdict.DONE
    if held.complete and not mismatch:
        return Verdict.PROVE
    if state == "gap":
        return Verdict.DONE
    return Verdict.GAP if mismatch or due else Verdict.WAIT


def missing(held: Held, mismatch: bool) -> tuple[MissingRange, ...]:
    """Give the first MAX_MISSING missing ranges; all of a stream whose digest is wrong, for no byte can be trusted."""
    if mismatch:
        return (MissingRange(start=0, end=held.end.total if held.end else None),)
    known = held.end.total if held.end else held.stored.end
    holes = [MissingRange(start=hole.start, end=hole.end) for hole in held.stored.missing(0, known)]
    if held.end is None:
        holes.append(MissingRange(start=known))
    return tuple(holes[:MAX_MISSING])
