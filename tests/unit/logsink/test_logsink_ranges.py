"""`Ranges` against the obvious model: a set of byte numbers."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_logsink.ranges import Range, Ranges

SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)).map(lambda span: (span[0], span[0] + span[1])))


def of(spans: list[tuple[int, int]]) -> Ranges:
    ranges = Ranges()
    for start, end in spans:
        ranges = ranges.add(start, end)
    return ranges


def members(spans: list[tuple[int, int]]) -> set[int]:
    return {byte for start, end in spans for byte in range(start, end)}


@given(SPANS)
def test_holds_exactly_what_was_added(spans: list[tuple[int, int]]) -> None:
    ranges = of(spans)
    assert members(list(ranges.parts)) == members(spans)
    assert all(one.end < two.start for one, two in pairwise(ranges.parts))
    assert all(part.start < part.end for part in ranges.parts)


@given(SPANS, st.data())
def test_order_and_repetition_do_not_matter(spans: list[tuple[int, int]], data: st.DataObject) -> None:
    assert of(data.draw(st.permutations(spans + spans))) == of(spans)


@given(SPANS, st.integers(0, 90), st.integers(0, 90))
def test_missing_is_the_rest(spans: list[tuple[int, int]], start: int, end: int) -> None:
    assert members(list(of(spans).missing(start, end))) == set(range(start, end)) - members(spans)


@given(SPANS)
def test_contiguous_and_end(spans: list[tuple[int, int]]) -> None:
    stored = members(spans)
    assert of(spans).contiguous == next(byte for byte in range(100) if byte not in stored)
    assert of(spans).end == max(stored, default=-1) + 1


@given(SPANS)
def test_flat_form_comes_back(spans: list[tuple[int, int]]) -> None:
    assert Ranges.of_flat(of(spans).flat()) == of(spans)


@pytest.mark.parametrize("flat", [[1], [3, 2], [0, 5, 5, 8], [0, 5, 3, 8], [2, 2]])
def test_what_is_no_flat_form_is_refused(flat: list[int]) -> None:
    with pytest.raises(ValueError, match="sorted, disjoint"):
        Ranges.of_flat(flat)


def test_missing_of_nothing_stored() -> None:
    assert list(Ranges().missing(3, 9)) == [Range(3, 9)]
