"""Streams come together from chunks in any order; chunks that lie change nothing."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_logsink.assembly import MAX_PIECES, End, Held, Lie, accept
from leveret_logsink.ranges import Ranges

LIMIT = 1000
SHA = "0" * 64


@given(st.binary(max_size=120), st.data())
def test_any_order_and_repetition_gives_the_whole(body: bytes, data: st.DataObject) -> None:
    cuts = sorted({0, len(body), *data.draw(st.lists(st.integers(0, len(body))))})
    chunks = [(start, body[start:end]) for start, end in pairwise(cuts)]
    last = (len(body), b"", End(len(body), SHA))
    sent = data.draw(st.permutations([*((at, part, None) for at, part in chunks * 2), last, last]))
    held, file = Held(), bytearray(len(body))
    for offset, part, end in sent:
        held, writes = accept(held, offset, len(part), end, LIMIT)
        for start, stop in writes:
            assert not any(file[start:stop]), "a stored byte was written again"
            file[start:stop] = part[start - offset : stop - offset]
    assert held.complete
    assert held.stored.contiguous == len(body)
    assert bytes(file) == body


def test_what_is_stored_is_not_written_again() -> None:
    held, _ = accept(Held(), 10, 10, None, LIMIT)
    held, writes = accept(held, 5, 20, None, LIMIT)
    assert writes == [(5, 10), (20, 25)]
    assert held.stored.flat() == [5, 25]


@pytest.mark.parametrize(
    ("held", "offset", "length", "end"),
    [
        pytest.param(Held(), LIMIT, 1, None, id="beyond the limit"),
        pytest.param(Held(), 0, 1, End(LIMIT + 1, SHA), id="a length beyond the limit"),
        pytest.param(Held(end=End(10, SHA)), 8, 3, None, id="beyond the end"),
        pytest.param(Held(Ranges().add(0, 20)), 20, 0, End(10, SHA), id="an end before what is stored"),
        pytest.param(Held(end=End(10, SHA)), 10, 0, End(11, SHA), id="another length"),
        pytest.param(Held(end=End(10, SHA)), 10, 0, End(10, "1" * 64), id="another digest"),
    ],
)
def test_lies(held: Held, offset: int, length: int, end: End | None) -> None:
    with pytest.raises(Lie):
        accept(held, offset, length, end, LIMIT)


def test_pieces_are_bounded() -> None:
    held = Held()
    for piece in range(MAX_PIECES):
        held, _ = accept(held, 2 * piece, 1, None, 10**6)
    with pytest.raises(Lie, match="pieces"):
        accept(held, 2 * MAX_PIECES, 1, None, 10**6)
    accept(held, 1, 1, None, 10**6)  # one that joins two is welcome


def test_an_empty_stream_is_complete_with_its_end() -> None:
    held, writes = accept(Held(), 0, 0, End(0, SHA), LIMIT)
    assert held.complete
    assert not writes
    assert not Held().complete
