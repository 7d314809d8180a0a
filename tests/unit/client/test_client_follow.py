"""Following a job: live pieces and history make each log whole, in order, with nothing twice."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from leveret_client.follow import Following, Hole, LogBytes
from leveret_proto.base import JobFacts
from leveret_proto.messages import (
    SETUP_LOG,
    HistoryReply,
    JobEvent,
    JobStatus,
    LogEvent,
    LogView,
    Reason,
    TailChunk,
    TaskResult,
    TaskState,
    Timings,
)

NOW = datetime(2024, 1, 1, tzinfo=UTC)
FACTS = JobFacts(job=7, owner="~a", project="p", submission="m", link="x" * 32)
STORED = bytes(range(256)) * 4


def ended(
    seq: int = 9, *, attempt: int | None = 1, tasks: tuple[TaskResult, ...] = (), boot: float | None = 1
) -> JobEvent:
    return JobEvent(
        facts=FACTS, source="dispatcher", seq=seq, at=NOW, status=JobStatus.SUCCESS, reason=Reason.COMPLETED,
        attempt=attempt, tasks=tasks, timings=Timings(boot=boot),
    )  # fmt: skip


def sealed(task: str, size: int, seq: int = 1, status: str = "sealed") -> LogEvent:
    return LogEvent.model_validate(
        {"facts": FACTS, "source": "logsink", "seq": seq, "at": NOW, "status": status, "attempt": 1, "task": task,
         "bytes": size}
    )  # fmt: skip


def chunk(offset: int, *, job: int = 7, task: str = "build", end: bool = False, attempt: int = 1) -> TailChunk:
    return TailChunk(job=job, attempt=attempt, task=task, offset=offset, end=end)


def test_pieces_in_order_are_shown_and_repeats_are_not() -> None:
    state = Following(7)
    assert state.on_piece(chunk(0), b"abc") == LogBytes(1, "build", 0, b"abc")
    assert state.on_piece(chunk(0), b"abc") is None
    assert state.on_piece(chunk(1), b"bcde") == LogBytes(1, "build", 3, b"de")
    assert state.hole() is None


def test_other_jobs_are_none_of_its_business() -> None:
    state = Following(8)
    assert state.on_piece(chunk(0), b"abc") is None
    assert not state.on_event(ended())
    assert state.end is None


def test_a_piece_past_a_hole_is_asked_of_history_with_what_lies_before_it() -> None:
    state = Following(7)
    assert state.on_piece(chunk(3), b"def") is None
    hole = state.hole()
    assert hole == Hole(1, "build", 0)
    assert state.on_history(hole, b"abcdef") == LogBytes(1, "build", 0, b"abcdef")
    assert state.hole() is None


def test_history_that_has_nothing_yet_is_not_asked_again_until_something_is_heard() -> None:
    state = Following(7)
    state.on_piece(chunk(3), b"def")
    hole = state.hole()
    assert hole is not None
    assert state.on_history(hole, b"") is None
    assert state.hole() is None
    state.on_piece(chunk(6), b"g")
    assert state.hole() == hole


def test_it_ends_when_the_job_has_and_every_log_of_its_tasks_is_told() -> None:
    tasks = (
        TaskResult(name="build", state=TaskState.FAILED),
        TaskResult(name="check", state=TaskState.SKIPPED),
    )
    state = Following(7)
    state.on_piece(chunk(0), b"abc")
    assert state.on_event(ended(tasks=tasks))
    assert state.untold() == ["build", SETUP_LOG]
    state.on_event(sealed("build", 3))
    state.on_event(sealed(SETUP_LOG, 2, seq=2))
    hole = state.hole()  # the setup's log was never seen live
    assert hole == Hole(1, SETUP_LOG, 0)
    assert not state.finished
    state.on_history(hole, b"xy")
    assert state.finished


def test_a_log_given_up_does_not_hold_the_end_when_history_has_no_more() -> None:
    state = Following(7)
    state.on_event(ended(boot=None))
    state.on_event(sealed("build", 9, status="gap"))
    hole = state.hole()
    assert hole is not None
    state.on_history(hole, b"")
    assert state.finished


def test_a_job_that_never_started_has_no_logs_to_wait_for() -> None:
    state = Following(7)
    state.on_event(ended(attempt=None, boot=None))
    assert state.finished


def test_logs_of_a_lost_attempt_do_not_hold_the_end() -> None:
    state = Following(7)
    state.on_piece(chunk(0, attempt=1), b"abc")
    state.on_event(ended(attempt=2, boot=None))
    assert state.finished


def test_events_that_come_twice_are_news_once() -> None:
    state = Following(7)
    assert state.on_event(sealed("build", 0))
    assert not state.on_event(sealed("build", 0))
    assert state.on_event(ended(seq=1))  # numbered apart from the logsink's


def test_the_list_of_stored_logs_tells_what_to_fetch_and_what_is_closed() -> None:
    state = Following(7)
    state.on_list(HistoryReply(job=7, attempt=1, logs=(LogView(attempt=1, task="build", state="sealed", bytes=4),)))
    hole = state.hole()
    assert hole == Hole(1, "build", 0)
    state.on_history(hole, b"abcd")
    state.on_event(ended(boot=None))
    assert state.finished


@given(
    pieces=st.lists(st.tuples(st.integers(0, len(STORED)), st.integers(0, 300)), max_size=30),
    slices=st.lists(st.integers(1, 400), min_size=1, max_size=5),
    closing=st.sampled_from(["first", "last"]),
)
def test_whatever_comes_live_in_whatever_order_the_whole_log_is_shown_once(
    pieces: list[tuple[int, int]], slices: list[int], closing: str
) -> None:
    state = Following(7)
    shown: list[LogBytes | None] = []
    if closing == "first":
        state.on_event(sealed("build", len(STORED)))
    for turn, (offset, length) in enumerate(pieces):
        shown.append(state.on_piece(chunk(offset), STORED[offset : offset + length]))
        hole = state.hole()
        if hole is not None and turn % 3 == 0:
            shown.append(state.on_history(hole, STORED[hole.offset :][: slices[turn % len(slices)]]))
    state.on_event(sealed("build", len(STORED), seq=2))
    while (hole := state.hole()) is not None:
        shown.append(state.on_history(hole, STORED[hole.offset :][: slices[0]]))
    told = [piece for piece in shown if piece is not None]
    assert b"".join(piece.data for piece in told) == STORED
    assert [piece.offset for piece in told] == [sum(len(p.data) for p in told[:n]) for n in range(len(told))]
    state.on_event(ended(boot=None))
    assert state.finished


def listed(size: int, task: str = "build", state: str = "open") -> HistoryReply:
    view = LogView.model_validate({"attempt": 1, "task": task, "state": state, "bytes": size})
    return HistoryReply(job=7, attempt=1, logs=(view,))


def test_the_last_bytes_of_a_log_that_was_there_begin_with_a_line() -> None:
    log = b"one\ntwo\nthree\n"
    state = Following(7, last=9)
    state.on_list(listed(len(log)))
    hole = state.hole()
    assert hole == Hole(1, "build", len(log) - 10)
    assert state.on_history(hole, log[hole.offset :]) == LogBytes(1, "build", 8, b"three\n")
    assert state.on_piece(chunk(len(log)), b"four") == LogBytes(1, "build", len(log), b"four")
    assert state.on_piece(chunk(0, task="new"), b"all of it") == LogBytes(1, "new", 0, b"all of it")
    state.on_list(listed(2000, "later"))  # heard of late, but it was there
    state.on_list(listed(5, "short"))
    assert state.hole() == Hole(1, "later", 2000 - 10)


@given(st.binary(min_size=1, max_size=60), st.integers(0, 80), st.data())
def test_a_tail_and_what_follows_is_the_end_of_the_log(log: bytes, last: int, data: st.DataObject) -> None:
    before = data.draw(st.integers(0, len(log)))
    state = Following(7, last=last)
    if before:
        state.on_list(listed(before))
    shown = b""
    for start in range(before, len(log), 7):
        piece = state.on_piece(chunk(start), log[start : start + 7])
        while (hole := state.hole()) is not None:
            stored = log[hole.offset : min(start + 7, hole.offset + 11)]
            filled = state.on_history(hole, stored)
            shown += filled.data if filled else b""
        shown += piece.data if piece else b""
    while (hole := state.hole()) is not None:
        filled = state.on_history(hole, log[hole.offset : hole.offset + 11])
        shown += filled.data if filled else b""
    assert log.endswith(shown)
    assert len(shown) <= len(log) - max(0, before - last)
    if last >= before:
        assert shown == log
