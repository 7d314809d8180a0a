"""Numbers of bytes as people write them, and tails that begin with a line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_proto.sizes import parse_size
from leveret_proto.tails import skipped


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("5B", 5), ("128KiB", 131072), ("1 MiB", 1 << 20), ("2GiB", 2 << 30)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1KB", "1.5MiB", "1e3", "٣", "9" * 13, "1\n", " 1", "KiB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="expected a number of bytes"):
        parse_size(text)


@given(st.text(alphabet="ab\n", min_size=2, max_size=40), st.data())
def test_a_tail_begins_with_a_line_or_where_it_was_asked_for(text: str, data: st.DataObject) -> None:
    log = text.encode()
    start = data.draw(st.integers(1, len(log) - 1))
    found = start - 1 + skipped(log[start - 1 :], ends=True)
    assert start <= found < len(log)
    before = log[start - 1 : found]
    if before.endswith(b"\n"):  # it left out the end of one line, and nothing more
        assert before.count(b"\n") == 1
    else:
        assert found == start
        assert b"\n" not in log[start - 1 : -1]


def test_a_tail_of_one_long_line_is_cut() -> None:
    assert skipped(b"aaaa\n", ends=True) == 1
    assert skipped(b"aaaa\n", ends=False) == 5
    assert skipped(b"aaaa", ends=False) == 1
