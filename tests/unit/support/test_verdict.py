"""The verdict of the crash test must find what it looks for."""

from typing import Any

import pytest

from tests.support.verdict import End, Run, judge, read_runs

RUNS = [Run(1, 1, "g1", "n1"), Run(1, 2, "g2", "n2")]


def event(
    seq: int, status: str = "running", *, kind: str = "job.event.v1", job: int = 1, **more: Any
) -> dict[str, Any]:
    state = {"status": status, "reason": "completed", "attempt": 2} if kind.startswith("job") else {}
    return {"type": kind, "facts": {"job": 1}, "source": "dispatcher", "seq": seq} | state


GOOD = [event(1, "pending"), event(2, kind="task.event.v1"), event(3, "success")]


def test_a_right_course_has_no_fault() -> None:
    ends, faults = judge([*GOOD, GOOD[0], {"type": "worker.event.v1", "worker": "w1"}], RUNS)
    assert (ends, faults) == ({1: End("success", "completed", 2)}, [])


@pytest.mark.parametrize(
    ("events", "runs", "fault"),
    [
        ([GOOD[0], GOOD[2]], RUNS, "gap in the numbers"),
        (GOOD[:2], [], "0 ends"),
        ([*GOOD, event(4, "failed")], RUNS, "2 ends"),
        ([*GOOD, event(4, kind="task.event.v1")], RUNS, "after its end"),
        ([*GOOD, event(1, "running")], RUNS, "two events of dispatcher have number 1"),
        (GOOD, [*RUNS, Run(1, 2, "g3", "n3")], "attempt (1, 2) ran 2 times"),
        (GOOD, [*RUNS, Run(1, 2, "g2", "n3")], "grant g2 ran 2 times"),
        (GOOD, [*RUNS, Run(1, 3, "g3", "n3")], "past its last one"),
        (GOOD, RUNS[:1], "succeeded and never ran"),
        (GOOD, [*RUNS, Run(2, 1, "g4", "n4")], "of which nothing was told"),
    ],
)
def test_each_fault_is_found(events: list[dict[str, Any]], runs: list[Run], fault: str) -> None:
    _, faults = judge(events, runs)
    assert any(fault in found for found in faults), faults


def test_lines_of_runs() -> None:
    assert read_runs("1 1 g1 n1\n1 2 g2 n2\n") == RUNS
