"""Time limits: whichever is over first ends a task, and the end says which it was."""

import signal

from hypothesis import given
from hypothesis import strategies as st

from leveret_guestapi import ExitStatus
from leveret_proto.messages import JobStatus, Reason
from leveret_worker.limits import ANSWER_LIMIT, TimeLimits, shorter

seconds = st.floats(0.1, 1e6)
TERMINATED = ExitStatus(None, signal.SIGTERM, True)


@given(begun=seconds, job=seconds, task=st.none() | seconds, grace=seconds, passed=st.floats(0, 2e6))
def test_no_command_gets_more_than_its_job_has_left(
    begun: float, job: float, task: float | None, grace: float, passed: float
) -> None:
    limits = TimeLimits(begun, job, task, grace)
    allowed = limits.for_task(begun + passed, "build")
    left = max(0.0, begun + job - (begun + passed))
    assert allowed.seconds == (left if task is None else min(left, task))
    assert allowed.reason is (Reason.TASK_TIME_LIMIT if allowed.seconds < left else Reason.TIME_LIMIT)
    # the machine outlives no command by more than the guest's time to answer
    assert allowed.patience == allowed.seconds + grace + ANSWER_LIMIT


@given(begun=seconds, job=seconds, task=st.none() | seconds, grace=seconds, passed=st.floats(0, 0.99))
def test_a_build_is_stopped_after_its_last_command_could_be(
    begun: float, job: float, task: float | None, grace: float, passed: float
) -> None:
    limits = TimeLimits(begun, job, task, grace)
    now = begun + passed * job
    assert now + limits.for_task(now, "build").patience <= begun + limits.patience + 1e-3


def test_an_end_says_whose_limit_it_was_and_how_it_came() -> None:
    limits = TimeLimits(begun=100, job=60, task=20, grace=5)
    early, late = limits.for_task(100, "build"), limits.for_task(150, "build")
    outcome = early.used_up(TERMINATED)
    assert (outcome.result, outcome.reason) == (JobStatus.TIMEOUT, Reason.TASK_TIME_LIMIT)
    assert outcome.detail == "task build's time limit of 20 s is over: SIGTERM ended it"
    outcome = late.used_up(ExitStatus(None, signal.SIGKILL, True))
    assert (outcome.result, outcome.reason) == (JobStatus.TIMEOUT, Reason.TIME_LIMIT)
    assert outcome.detail == "the job's time limit of 60 s is over: SIGTERM did not end it within 5 s, SIGKILL did"
    assert "the guest did not end it, so its machine was stopped" in (late.used_up(None).detail or "")


def test_a_task_that_ends_well_on_sigterm_was_late_all_the_same() -> None:
    outcome = TimeLimits(0, 60, None, 5).for_task(0, "build").used_up(ExitStatus(0, None, True))
    assert (outcome.result, outcome.reason) == (JobStatus.TIMEOUT, Reason.TIME_LIMIT)


def test_the_manifest_asks_and_the_installation_bounds() -> None:
    assert shorter(None, None, None) is None
    assert shorter(None, 60, None) == 60
    assert shorter(90, 60, None) == 90
    assert shorter(90, 60, 80) == 80
    assert shorter(None, None, 80) == 80
