"""Ranges and conditions as RFC 9110 has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_logsink.http_rules import Unsatisfiable, last, live, refused, unchanged, wanted


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=2-", (2, 10)),
        ("bytes=2-4", (2, 5)),
        ("Bytes=2-400", (2, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-30", (0, 10)),
        # not valid, or more than one range: the whole is sent
        (None, None),
        ("", None),
        ("bytes=4-2", None),
        ("bytes=-", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
        ("bytes=٣-٤", None),
        ("bytes=0-1\n", None),
    ],
)
def test_ranges(header: str | None, part: tuple[int, int] | None) -> None:
    assert wanted(header, 10) == part


@pytest.mark.parametrize(("header", "size"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=0-", 0), ("bytes=-1", 0)])
def test_unsatisfiable(header: str, size: int) -> None:
    with pytest.raises(Unsatisfiable):
        wanted(header, size)


@given(st.text(alphabet="bytes=-,0123456789 ", max_size=30), st.integers(0, 50))
def test_never_outside(header: str, size: int) -> None:
    try:
        part = wanted("bytes=" + header, size)
    except Unsatisfiable:
        return
    assert part is None or 0 <= part[0] < part[1] <= size


def test_unchanged() -> None:
    assert unchanged('"a", W/"b"', '"b"')
    assert unchanged("*", '"b"')
    assert not unchanged('"a"', '"b"')
    assert not unchanged(None, '"b"')


def test_refused() -> None:
    assert not refused(None, '"b"')
    assert not refused('"a", "b"', '"b"')
    assert not refused("*", '"b"')
    assert refused('"a"', '"b"')
    assert refused('W/"b"', '"b"')  # compared strongly
    assert refused("", '"b"')


@pytest.mark.parametrize(
    ("method", "accept", "query", "stream"),
    [
        ("GET", "text/event-stream", {}, True),
        ("GET", "text/plain, Text/Event-Stream;q=0.9", {}, True),
        ("GET", None, {"follow": ""}, True),
        ("HEAD", "text/event-stream", {"follow": ""}, False),
        ("GET", "*/*", {}, False),
        ("GET", None, {}, False),
    ],
)
def test_live(method: str, accept: str | None, query: dict[str, str], stream: bool) -> None:
    assert live(method, accept, query) is stream


def test_last() -> None:
    assert last({}) is None
    assert last({"last": "128KiB"}) == 128 * 1024
    for wrong in ("", "-1", "1 KB", "1e3", "٣", "9" * 13, "1\n"):
        with pytest.raises(ValueError, match="last: expected a number of bytes"):
            last({"last": wrong})
