"""Which waiting job needs which others to succeed first. Pure.

A job that has not come yet, or is another owner's (which is as good as not there), has simply not ended. A job that
ended keeps no trace here: whoever comes later asks the database how those that it needs have ended.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from leveret_proto.messages import JobStatus

#: Jobs named in one detail.
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Followed:
    """What follows from a job's end: jobs that need nothing more, and jobs that will never have what they need."""

    released: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()


class Dependencies:
    """The jobs that wait for others of their owner."""

    def __init__(self) -> None:
        self._needs: dict[int, set[int]] = {}
        self._owner_of: dict[int, str] = {}
        #: Owner and job → those of this owner that wait for it.
        self._needed_by: dict[tuple[str, int], dict[int, None]] = {}

    def __len__(self) -> int:
        return len(self._needs)

    def __contains__(self, job: int) -> bool:
        return job in self._needs

    def add(self, job: int, owner: str, needs: Iterable[int]) -> None:
        """A job waits until all that it `needs`, at least one, have succeeded. Adding it again changes nothing."""
        if job in self._needs:
            return
        self._needs[job] = set(needs)
        self._owner_of[job] = owner
        for needed in self._needs[job]:
            self._needed_by.setdefault((owner, needed), {})[job] = None

    def remove(self, job: int) -> None:
        """The job waits for the others no more."""
        if job not in self._needs:
            return
        owner = self._owner_of.pop(job)
        for needed in self._needs.pop(job):
            waiting = self._needed_by[owner, needed]
            del waiting[job]
            if not waiting:
                del self._needed_by[owner, needed]

    def needs(self, job: int) -> tuple[int, ...]:
        """Give what a job still waits for."""
        return tuple(sorted(self._needs.get(job, ())))

    def ended(self, job: int, owner: str, *, succeeded: bool) -> Followed:
        """A job has ended: whatever waited for it alone is released, or has failed. Neither is here any more."""
        self.remove(job)
        waiting = self._needed_by.pop((owner, job), {})
        released, failed = [], []
        for other in waiting:
            self._needs[other].discard(job)
            if not succeeded:
                failed.append(other)
            elif not self._needs[other]:
                released.append(other)
        for gone in (*released, *failed):
            self.remove(gone)
        return Followed(tuple(released), tuple(failed))


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a waiting job may expect of the jobs it needs: those it waits for, and in words why it is in vain."""

    waits_for: tuple[int, ...] = ()
    failed: str | None = None

    @property
    def detail(self) -> str | None:
        """Say what it waits for."""
        if not self.waits_for:
            return None
        named = ", ".join(str(job) for job in self.waits_for[:_NAMED])
        more = len(self.waits_for) - _NAMED
        jobs = "job" if len(self.waits_for) == 1 else "jobs"
        return f"waits for {jobs} {named}" + (f" and {more} more" if more > 0 else "")


def outlook(needs: Mapping[int, JobStatus | None]) -> Outlook:
    """Judge how the jobs that one needs stand; None: has not come, or is another owner's."""
    for needed, status in needs.items():
        if status is not None and status.ended and status is not JobStatus.SUCCESS:
            return Outlook(failed=failure(needed, status))
    return Outlook(tuple(needed for needed, status in needs.items() if status is not JobStatus.SUCCESS))


def failure(needed: int, status: JobStatus) -> str:
    """Say that a job which another one needs ended without success."""
    return f"job {needed}, which it depends on, ended {status}"
