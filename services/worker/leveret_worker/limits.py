"""How long a build and its tasks may run. Pure.

A command at its limit gets SIGTERM, so that it can write its last words, and after a grace SIGKILL. The agent sends
both; where it does not, the machine is stopped.
"""

from dataclasses import dataclass
from signal import SIGKILL

from leveret_guestapi import ExitStatus
from leveret_proto.messages import JobStatus, Reason
from leveret_worker.outcome import Outcome

#: Seconds after the grace in which a guest has to tell that a command has ended.
ANSWER_LIMIT = 5.0


@dataclass(frozen=True)
class Allowance:
    """What one command gets: `seconds` until SIGTERM, `grace` more until SIGKILL. `whose`: the limit's owner."""

    seconds: float
    grace: float
    reason: Reason
    whose: str

    @property
    def patience(self) -> float:
        """Seconds until even the slowest guest must have ended the command."""
        return self.seconds + self.grace + ANSWER_LIMIT

    def used_up(self, status: ExitStatus | None) -> Outcome:
        """The end of a build whose command outlived this. `status`: how the agent ended it; None: not at all."""
        if status is None:
            how = "the guest did not end it, so its machine was stopped"
        elif status.signal == SIGKILL:
            how = f"SIGTERM did not end it within {self.grace:g} s, SIGKILL did"
        else:
            how = "SIGTERM ended it"
        return Outcome(JobStatus.TIMEOUT, self.reason, f"{self.whose} is over: {how}")


@dataclass(frozen=True)
class TimeLimits:
    """The limits of one job, in seconds. `begun`: when the job began, by the clock that every `now` is of."""

    begun: float
    job: float
    #: Of each task; None: the job's alone.
    task: float | None
    grace: float

    @property
    def patience(self) -> float:
        """Seconds from the beginning until a build is stopped with its machine, whatever it is at."""
        return self.job + self.grace + ANSWER_LIMIT

    def for_setup(self, now: float) -> Allowance:
        """What a command before the first task gets."""
        left = max(0.0, self.begun + self.job - now)
        return Allowance(left, self.grace, Reason.TIME_LIMIT, f"the job's time limit of {self.job:g} s")

    def for_task(self, now: float, task: str) -> Allowance:
        """What the task of that name gets."""
        of_job = self.for_setup(now)
        if self.task is None or of_job.seconds <= self.task:
            return of_job
        return Allowance(self.task, self.grace, Reason.TASK_TIME_LIMIT, f"task {task}'s time limit of {self.task:g} s")


def shorter(asked: float | None, usual: float | None, most: float | None) -> float | None:
    """The limit that holds where a manifest asks for `asked` (None: says nothing), and an installation has a say."""
    wanted = asked if asked is not None else usual
    given = [limit for limit in (wanted, most) if limit is not None]
    return min(given, default=None)
