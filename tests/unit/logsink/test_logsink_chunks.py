"""Chunks are believed only as far as their routing key, and refused with a reason otherwise."""

from typing import Any

import pytest

from leveret_logsink import chunks
from leveret_logsink.assembly import End
from leveret_proto import keys
from leveret_proto.envelope import Unreadable
from leveret_proto.messages import MAX_CHUNK

GRANT = "01890000-0000-7000-8000-000000000000"
SHA = "0" * 64
KEY = keys.log_chunk("host.example", 18, 2, "a.b/c")
HEADERS: dict[str, Any] = {"grant": GRANT, "offset": 5}
ARTIFACT = {"grant": GRANT, "offset": 0, "index": 3, "path": "out/scdoc", "name": "scdoc"}


def test_a_log_chunk() -> None:
    chunk = chunks.read("log", 2, KEY, "log.chunk.v1", HEADERS, b"x")
    assert chunk.key == ("log", 18, 2, "host.example", "a.b/c")
    assert (chunk.offset, chunk.body, chunk.end, chunk.name) == (5, b"x", None, None)


def test_headers_cannot_say_whose_it_is() -> None:
    told = HEADERS | {"worker": "other", "job": 99, "attempt": 1, "task": "other"}
    assert chunks.read("log", 2, KEY, "log.chunk.v1", told, b"").key == ("log", 18, 2, "host.example", "a.b/c")


def test_an_artifact_chunk() -> None:
    told = ARTIFACT | {"total": 4, "sha256": SHA}
    chunk = chunks.read("artifact", 2, keys.artifact_chunk("w", 18, 1), "artifact.chunk.v1", told, b"data")
    assert chunk.key == ("artifact", 18, 1, "w", "3")
    assert (chunk.end, chunk.name) == (End(4, SHA), "scdoc")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"body": bytes(MAX_CHUNK + 1)}, "limit"),
        ({"partition": 3}, "partition"),
        ({"key": "03.w.18.1.t"}, "partition"),
        ({"key": "02.w.18.1"}, "form"),
        ({"key": "02.w.18.x.t"}, "number"),
        ({"key": "02.w.18.0.t"}, "attempt"),
        ({"key": f"02.w.18.{2**31}.t"}, "attempt"),
        ({"key": "00.w.0.1.t", "partition": 0}, "job"),
        ({"key": "02.w.18.1.a%00b"}, "printed"),
        ({"type_": "artifact.chunk.v1"}, "expected"),
        ({"type_": None}, "expected"),
        ({"headers": {"grant": GRANT}}, "offset"),
        ({"headers": HEADERS | {"offset": -1}}, "offset"),
        ({"headers": HEADERS | {"total": 1}}, "both"),
        ({"headers": HEADERS | {"sha256": SHA}}, "both"),
        ({"headers": HEADERS | {"total": 1, "sha256": "short"}}, "sha256"),
    ],
)
def test_unreadable(change: dict[str, Any], reason: str) -> None:
    given = {"kind": "log", "partition": 2, "key": KEY, "type_": "log.chunk.v1", "headers": HEADERS, "body": b"x"}
    with pytest.raises(Unreadable, match=reason):
        chunks.read(**(given | change))


@pytest.mark.parametrize("change", [{"name": "a\0b"}, {"name": ""}, {"index": 512}, {"index": -1}, {"path": ""}])
def test_unreadable_artifacts(change: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        chunks.read("artifact", 2, keys.artifact_chunk("w", 18, 1), "artifact.chunk.v1", ARTIFACT | change, b"")
