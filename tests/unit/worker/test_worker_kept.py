"""Which logs stay to be sent again, and which parts of them a request means."""

from hypothesis import given
from hypothesis import strategies as st

from leveret_proto.messages import MissingRange
from leveret_worker.kept import Aged, to_drop
from leveret_worker.resender import within

aged = st.builds(Aged, st.uuids().map(str), st.floats(0, 1000), st.integers(0, 100))


@given(st.lists(aged, max_size=20), st.floats(0, 1000), st.integers(0, 500))
def test_the_newest_stay_as_far_as_there_is_time_and_room(settled: list[Aged], seconds: float, most: int) -> None:
    dropped = set(to_drop(settled, 1000.0, seconds, most))
    stay = [one for one in settled if one.grant not in dropped]
    assert sum(one.bytes for one in stay) <= most
    assert all(1000.0 - one.since <= seconds for one in stay)
    for one in settled:
        as_new = [other for other in settled if other.since >= one.since]
        if 1000.0 - one.since <= seconds and sum(other.bytes for other in as_new) <= most:
            assert one.grant not in dropped


ends = st.none() | st.integers(0, 2**62)
ranges = st.builds(MissingRange, start=st.integers(0, 300) | st.integers(0, 2**62), end=ends)


@given(st.lists(ranges, max_size=8).map(tuple), st.integers(0, 200))
def test_exactly_the_missing_bytes_that_are_there_are_sent_once(missing: tuple[MissingRange, ...], size: int) -> None:
    sent = [offset for start, end in within(missing, size) for offset in range(start, end)]
    wanted = {offset for one in missing for offset in range(one.start, min(size, size if one.end is None else one.end))}
    assert sent == sorted(wanted)
