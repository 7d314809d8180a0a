"""A log as server-sent events: read as the HTML standard says, it is the log's bytes."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_logsink import sse


def read(stream: bytes) -> list[tuple[str, str, str | None]]:
    """(event, data, last id) of each event, by the rules of section 9.2.6."""
    events: list[tuple[str, str, str | None]] = []
    kind, data, id_ = "", "", None
    for line in stream.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                events.append((kind or "message", data.removesuffix("\n"), id_))
            kind, data = "", ""
        elif name == "event":
            kind = value
        elif name == "data":
            data += value + "\n"
        elif name == "id":
            id_ = value
    return events


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=8))
def test_every_byte_survives_and_every_id_is_where_to_go_on(pieces: list[bytes]) -> None:
    offset, sent = 0, sse.opening(1000)
    for body in pieces:
        sent += sse.piece(offset, body) + sse.HEARTBEAT
        offset += len(body)
    sent += sse.end("sealed", offset, "ab")
    *told, last = read(sent)
    assert [base64.b64decode(data) for _, data, _ in told] == pieces
    assert {kind for kind, _, _ in told} <= {"message"}
    assert [sse.resume(id_) for _, _, id_ in told] == [len(b"".join(pieces[:n])) for n in range(1, len(pieces) + 1)]
    assert (last[0], json.loads(last[1])) == ("end", {"state": "sealed", "bytes": offset, "sha256": "ab"})
    with pytest.raises(sse.Ended):
        sse.resume(last[2])


def test_a_reader_that_has_had_nothing_begins_anew() -> None:
    assert sse.resume(None) is None
    assert sse.resume("") is None


@pytest.mark.parametrize("id_", ["-1", "1.0", "x", "1 ", "1-end ", "٣", "1" * 19, "\udcff"])
def test_what_is_no_id_is_refused(id_: str) -> None:
    with pytest.raises(ValueError, match="Last-Event-ID"):
        sse.resume(id_)
