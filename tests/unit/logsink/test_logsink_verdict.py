"""Which logs an attempt owes, and what becomes of each."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_logsink.assembly import End, Held
from leveret_logsink.ranges import Ranges
from leveret_logsink.verdict import AttemptNews, State, Verdict, expected, judge, missing, news, proven
from leveret_proto.messages import (
    MAX_MISSING,
    SETUP_LOG,
    JobEvent,
    JobFacts,
    JobStatus,
    MissingRange,
    Reason,
    TaskResult,
    TaskState,
    Timings,
)

SHA = "0" * 64
FACTS = JobFacts(job=7, owner="alice", project="hare", submission="m", link="x" * 22)


def event(status: JobStatus, reason: Reason, **more: Any) -> JobEvent:
    return JobEvent(facts=FACTS, source="dispatcher", seq=1, at=datetime.now(UTC), status=status, reason=reason, **more)


WHOLE = Held(Ranges().add(0, 9), End(9, SHA))
HOLED = Held(Ranges().add(0, 3).add(5, 9), End(9, SHA))
ENDLESS = Held(Ranges().add(0, 9))


@pytest.mark.parametrize(
    ("held", "state", "mismatch", "due", "verdict"),
    [
        (ENDLESS, "open", False, False, Verdict.WAIT),
        (HOLED, "open", False, False, Verdict.WAIT),
        (ENDLESS, "open", False, True, Verdict.GAP),
        (HOLED, "open", False, True, Verdict.GAP),
        (Held(), "open", False, True, Verdict.GAP),
        (WHOLE, "open", False, False, Verdict.PROVE),
        # complete but not hashed yet when time is up: the proof decides
        (WHOLE, "open", False, True, Verdict.PROVE),
        (WHOLE, "open", True, False, Verdict.GAP),
        # late chunks may still complete a gap, but a gap is said once
        (WHOLE, "gap", False, False, Verdict.PROVE),
        (HOLED, "gap", False, True, Verdict.DONE),
        (WHOLE, "gap", True, True, Verdict.DONE),
    ],
)
def test_verdicts(held: Held, state: State, mismatch: bool, due: bool, verdict: Verdict) -> None:
    assert judge(held, state, mismatch, due) is verdict


@given(st.sampled_from([Held(), WHOLE, HOLED, ENDLESS]), st.booleans(), st.booleans())
def test_what_is_sealed_stays_sealed(held: Held, mismatch: bool, due: bool) -> None:
    assert judge(held, "sealed", mismatch, due) is Verdict.DONE


def test_missing_ranges() -> None:
    assert missing(HOLED, mismatch=False) == (MissingRange(start=3, end=5),)
    assert missing(ENDLESS, mismatch=False) == (MissingRange(start=9),)
    assert missing(Held(), mismatch=False) == (MissingRange(start=0),)
    assert missing(Held(Ranges().add(0, 3), End(9, SHA)), mismatch=False) == (MissingRange(start=3, end=9),)
    assert missing(WHOLE, mismatch=True) == (MissingRange(start=0, end=9),)


def test_missing_ranges_are_bounded() -> None:
    torn = Ranges.of_flat(range(1, 5 * MAX_MISSING + 1, 1)[: 4 * MAX_MISSING])
    assert len(missing(Held(torn), mismatch=False)) == MAX_MISSING


def test_expected_logs() -> None:
    assert expected(True, ("build",)) == [SETUP_LOG, "build"]
    assert expected(False, ()) == []


@pytest.mark.parametrize(
    ("logs", "nothing_left"),
    [
        ({"a": "sealed", "b": "sealed"}, True),
        ({"a": "sealed", "b": "sealed", "more": "sealed"}, True),
        ({"a": "sealed"}, False),
        ({"a": "sealed", "b": "gap"}, False),
        ({"a": "sealed", "b": "sealed", "more": "open"}, False),
    ],
)
def test_an_attempt_is_done_with_when_all_it_owes_and_all_that_came_is_sealed(
    logs: dict[str, State], nothing_left: bool
) -> None:
    assert proven(["a", "b"], logs) is nothing_left


TASKS = (
    TaskResult(name="one", state=TaskState.SUCCESS),
    TaskResult(name="two", state=TaskState.FAILED),
    TaskResult(name="three", state=TaskState.SKIPPED),
    TaskResult(name="four", state=TaskState.PENDING),
)


@pytest.mark.parametrize(
    ("told", "read"),
    [
        (event(JobStatus.PENDING, Reason.SUBMITTED), None),
        (
            event(JobStatus.QUEUED, Reason.GRANTED, attempt=1, worker="w"),
            AttemptNews(1, "w", started=False, ended=False, ran=()),
        ),
        (
            event(JobStatus.RUNNING, Reason.STARTED, attempt=1, worker="w"),
            AttemptNews(1, "w", started=True, ended=False, ran=()),
        ),
        (
            event(JobStatus.FAILED, Reason.TASK_FAILED, attempt=2, worker="w", tasks=TASKS),
            AttemptNews(2, "w", started=True, ended=True, ran=("one", "two")),
        ),
        (
            event(JobStatus.FAILED, Reason.SETUP_FAILED, attempt=1, worker="w", tasks=TASKS[2:]),
            AttemptNews(1, "w", started=True, ended=True, ran=()),
        ),
        (
            event(JobStatus.FAILED, Reason.GUEST_LOST, attempt=1, worker="w", timings=Timings(boot=2.5)),
            AttemptNews(1, "w", started=True, ended=True, ran=()),
        ),
        (  # the guest never came up: there is no log to wait for
            event(JobStatus.FAILED, Reason.GUEST_LOST, attempt=1, worker="w", timings=Timings(total=9)),
            AttemptNews(1, "w", started=False, ended=True, ran=()),
        ),
        (
            event(JobStatus.PENDING, Reason.LOST, attempt=1),
            AttemptNews(1, None, started=False, ended=True, ran=()),
        ),
        (
            event(JobStatus.PENDING, Reason.HANDED_BACK, attempt=1, worker="w"),
            AttemptNews(1, "w", started=False, ended=True, ran=()),
        ),
        (
            event(JobStatus.CANCELLED, Reason.CANCELLED, attempt=1, worker="w"),
            AttemptNews(1, "w", started=False, ended=True, ran=()),
        ),
    ],
)
def test_news_of_attempts(told: JobEvent, read: AttemptNews | None) -> None:
    assert news(told) == read
