"""What is published of a log: all of it up to the limits, then its last bytes and how many are left out between."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_worker import log_limit
from leveret_worker.log_limit import LAST, JobLimit, LogLimit


def published(limit: LogLimit, pieces: list[bytes]) -> tuple[bytes, bytes]:
    """What goes out live, and what at the end."""
    return b"".join(map(limit.take, pieces)), limit.end()


@given(st.lists(st.binary(max_size=60), max_size=12), st.integers(0, 200), st.integers(0, 200))
def test_every_byte_is_shown_or_counted(pieces: list[bytes], own: int, job: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(log_limit, "LAST", 50)
        live, last = published(LogLimit(own, JobLimit(job)), pieces)
    whole, shown = b"".join(pieces), min(own, job)
    if len(whole) <= shown:
        assert (live, last) == (whole, b"")
        return
    assert live.startswith(whole[:shown])
    assert re.fullmatch(rb"\n?\[leveret\] the limit of \d+ bytes for (a log|all logs) is reached[^\n]*\n", live[shown:])
    said, _, tail = last.partition(b"\n")
    assert whole[shown:].endswith(tail)
    assert len(tail) == min(50, len(whole) - shown)
    found = re.fullmatch(rb"\[leveret\] (\d+) bytes are left out here; the last (\d+) follow", said)
    assert found is not None
    assert (int(found[1]), int(found[2])) == (len(whole) - shown - len(tail), len(tail))


def test_logs_of_a_job_share_its_limit_and_a_small_late_one_is_whole_at_its_end() -> None:
    job = JobLimit(100)
    first, second, third = (LogLimit(80, job) for _ in range(3))
    assert published(first, [b"a" * 80]) == (b"a" * 80, b"")
    live, last = published(second, [b"b" * 30])
    assert live.startswith(b"b" * 20 + b"\n[leveret] the limit of 100 bytes for all logs is reached")
    assert last.endswith(b"0 bytes are left out here; the last 10 follow\n" + b"b" * 10)
    live, last = published(third, [b"late\n"])
    assert live.startswith(b"[leveret] the limit of 100 bytes for all")
    assert last.endswith(b"follow\nlate\n")


def test_a_flood_is_held_in_little_memory() -> None:
    limit = LogLimit(10, JobLimit(10))
    for _ in range(100):
        limit.take(b"x" * LAST)
        assert len(limit._last) <= 3 * LAST
    assert limit.end().endswith(b"x" * LAST)
    assert str(99 * LAST - 10).encode() in limit.end()
