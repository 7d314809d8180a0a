"""What is kept of a worker beyond its sessions: an operator's drain, faults in a row, quarantine. Pure.

A fault is an attempt that failed by the worker's host and not by its job: no machine came up, the spool is full, the
grant could not be read or was never taken. So many in a row, and the worker is quarantined: it is given no more jobs,
which would fare no better there. One that ends well shows that the host is fit, and ends it; so does an operator who
resumes the worker.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from leveret_proto.capability import Requirement
from leveret_proto.messages import AttemptState, AttemptStatus, Halt, JobStatus, Reason

#: Characters kept of a fault's words.
MOST_WORDS = 400


@dataclass(frozen=True, slots=True)
class Drained:
    """An operator's order. `limit`: seconds that what runs is given; None: as the worker's configuration says."""

    by: str
    limit: float | None
    since: datetime


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """What is kept of a worker.

    Attributes:
        faults: in a row.
        last_fault: the last of them in words.
        quarantined: since when.
    """

    drained: Drained | None = None
    faults: int = 0
    last_fault: str | None = None
    quarantined: datetime | None = None

    @property
    def halt(self) -> Halt | None:
        """Why it is given no jobs. An operator's order is named first."""
        if self.drained is not None:
            return Halt(kind="drained", why=f"drained by {self.drained.by}", since=self.drained.since)
        if self.quarantined is not None:
            why = f"quarantined after {self.faults} faults in a row, the last: {self.last_fault}"
            return Halt(kind="quarantined", why=why, since=self.quarantined)
        return None


#: Of a worker of which nothing is kept.
BLANK = WorkerRecord()


class Sign(StrEnum):
    """What an attempt says of the host that it ran on."""

    FIT = "fit"
    FAULT = "fault"
    #: It says nothing: what happened may be the job's doing, or nobody's.
    NONE = "none"


def sign_of(status: AttemptStatus, requirement: Requirement) -> Sign:
    """Say what a status tells of its worker's host.

    A guest that was lost after it came up tells nothing, for a job can do that to its guest. Nor does a boot that
    failed with memory that the manifest chose: no manifest is to put workers out of work.
    """
    if status.state is not AttemptState.ENDED:
        return Sign.NONE
    if status.result is JobStatus.SUCCESS or status.reason is Reason.TASK_FAILED:
        return Sign.FIT
    if status.reason is Reason.WORKER_FAULT:
        return Sign.FAULT
    if status.reason is Reason.BOOT_FAILED and not requirement.memory_mib:
        return Sign.FAULT
    return Sign.NONE


def words(status: AttemptStatus) -> str:
    """Say what a fault was.

    Workers' records are public, so this has nothing that a guest may have said: of a machine's end, only its kind.
    """
    handed_back = status.result is None and status.detail is not None
    return (f"{status.detail}" if handed_back else f"{status.reason}")[:MOST_WORDS]


def after(record: WorkerRecord, sign: Sign, fault: str, at: datetime, most: int) -> WorkerRecord:
    """Give the record after an attempt's end.

    Args:
        fault: what it was, in words, where `sign` is a fault.
        most: faults in a row that put a worker into quarantine.
    """
    if sign is Sign.FIT:
        return replace(record, faults=0, last_fault=None, quarantined=None)
    if sign is Sign.NONE:
        return record
    faults = record.faults + 1
    since = record.quarantined or (at if faults >= most else None)
    return replace(record, faults=faults, last_fault=fault, quarantined=since)
