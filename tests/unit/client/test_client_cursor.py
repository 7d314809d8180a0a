"""A subscriber's cursor: what it tells apart, what it forgets, and the file that keeps it."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_client.cursor import REMEMBERED, Cursor, CursorFile
from leveret_client.errors import CursorUnusable
from leveret_client.times import parse_since
from leveret_proto.messages import (
    Event,
    GroupEvent,
    GroupView,
    JobEvent,
    JobFacts,
    JobStatus,
    Reason,
    SubmissionEvent,
    WorkerEvent,
)

AT = datetime(2026, 7, 1, 12, tzinfo=UTC)


def event(job: int, seq: int) -> JobEvent:
    facts = JobFacts(job=job, owner="~me", project="p", submission="m", link="l" * 24)
    return JobEvent(
        facts=facts, source="dispatcher", seq=seq, at=AT, status=JobStatus.PENDING, reason=Reason.SUBMITTED
    )  # fmt: skip


UNNUMBERED: list[Event] = [
    WorkerEvent(worker="w", state="joined", at=AT),
    WorkerEvent(worker="w", state="joined", at=AT + timedelta(microseconds=1)),
    WorkerEvent(worker="w", state="left", at=AT),
    SubmissionEvent(owner="~me", project="p", reason="faults", message="m", at=AT),
    GroupEvent(group=GroupView(owner="~me", group="g", state="success"), at=AT),
]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 2)), max_size=40))
def test_with_repeats_of_what_has_been_each_event_comes_once_in_order(moves: list[tuple[int, int]]) -> None:
    """The stream has each job's events in order; some of those before come again at any time."""
    cursor, last, told = Cursor(), dict.fromkeys((1, 2, 3), 0), []
    for offset, (job, back) in enumerate(moves):
        last[job] += back == 0
        arrived = event(job, max(1, last[job] - back))
        if last[job] == 0:
            continue
        if not cursor.has(arrived):
            cursor = cursor.past(offset, arrived)
            told.append((job, arrived.seq))
        cursor = Cursor.parse(cursor.dump())  # a restart
    assert sorted(told) == [(job, seq) for job in last for seq in range(1, last[job] + 1)]


def test_events_without_numbers_are_told_apart() -> None:
    cursor = Cursor()
    for offset, told in enumerate(UNNUMBERED):
        assert not cursor.has(told)
        cursor = Cursor.parse(cursor.past(offset, told).dump())
        assert cursor.has(told)
    assert all(cursor.has(told) for told in UNNUMBERED)


def test_a_cursor_stays_small_and_forgets_the_job_heard_of_longest_ago() -> None:
    cursor = Cursor()
    for job in range(1, REMEMBERED + 1):
        cursor = cursor.past(job, event(job, 1))
    cursor = cursor.past(5000, event(1, 2)).past(5001, event(REMEMBERED + 1, 1))
    assert cursor.has(event(1, 2))
    assert not cursor.has(event(2, 1))
    assert cursor.has(event(3, 1))
    assert len(cursor.dump()) < 40_000
    for n in range(300):
        cursor = cursor.past(6000 + n, WorkerEvent(worker="w", state="joined", at=AT + timedelta(seconds=n)))
    assert Cursor.parse(cursor.dump()) == cursor


def test_the_beginning_in_time_holds_until_the_end_was_reached() -> None:
    cursor = Cursor(since=AT).past(3, event(1, 1)).moved(9, end=False)
    assert (cursor.offset, cursor.since) == (9, AT)
    assert Cursor.parse(cursor.dump()) == cursor
    assert cursor.moved(None, end=True) == Cursor(offset=9).past(9, event(1, 1))


def test_a_file_keeps_the_cursor(tmp_path: Path) -> None:
    store = CursorFile(tmp_path / "c")
    assert store.load() is None
    cursor = Cursor(since=AT).past(3, event(1, 1))
    store.save(cursor)
    assert CursorFile(tmp_path / "c").load() == cursor
    store.save(cursor.past(4, event(1, 2)))
    assert CursorFile(tmp_path / "c").load() == cursor.past(4, event(1, 2))
    assert os.listdir(tmp_path) == ["c"]


def test_a_crash_while_saving_leaves_the_old_cursor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CursorFile(tmp_path / "c")
    store.save(Cursor(offset=1))

    def crash(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(CursorUnusable, match=r"No space left on device; the cursor can't be kept there"):
        store.save(Cursor(offset=2))
    assert store.load() == Cursor(offset=1)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 2}', '{"version":1,"offset":-1}', '{"version":1,"seqs":[[1]]}', "\0\xff"]
)
def test_a_file_that_is_no_cursor_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "c").write_text(text)
    with pytest.raises(CursorUnusable, match=r"c holds no cursor: .*remove it to begin anew"):
        CursorFile(tmp_path / "c").load()


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CursorUnusable, match="No such file or directory"):
        CursorFile(tmp_path / "no" / "c").save(Cursor())
    with pytest.raises(CursorUnusable, match="Is a directory"):
        CursorFile(tmp_path).load()


@pytest.mark.parametrize(
    ("text", "ago"),
    [("90s", timedelta(seconds=90)), ("15m", timedelta(minutes=15)), ("2h", timedelta(hours=2)), ("3d", timedelta(3)),
     ("1w", timedelta(7)), ("0s", timedelta(0))],
)  # fmt: skip
def test_how_long_ago(text: str, ago: timedelta) -> None:
    assert parse_since(text, AT) == AT - ago


def test_when() -> None:
    assert parse_since("2026-07-01T14:00:00+02:00", AT) == AT
    assert parse_since("2026-07-01T12:00:00Z", AT) == AT
    local = parse_since("2026-07-01", AT)
    assert local == datetime(2026, 7, 1).astimezone(UTC)
    for wrong in ("", "2", "h", "2 h", "-2h", "2y", "1e3s", "999999999w", "yesterday", "2026-13-01", "٣d"):
        with pytest.raises(ValueError, match="is no time; give 90s, 15m, 2h"):
            parse_since(wrong, AT)
