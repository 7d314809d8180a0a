"""Messages as version 0.1 sent them: later versions must read them, for they wait in queues across an upgrade.

A sample is never changed. A new message type brings a new file; a new version of a type brings one beside the old.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leveret_proto.envelope import pack, unpack, unpack_headers
from leveret_proto.messages import REGISTRY, ArtifactChunk, LogChunk, TailChunk

SAMPLES = {file.name.removesuffix(".json"): file for file in sorted((Path(__file__).parent / "samples").glob("*.json"))}
RAW = (LogChunk, ArtifactChunk, TailChunk)


@pytest.mark.parametrize("type_", SAMPLES)
def test_a_sample_is_read_whole(type_: str) -> None:
    sent = SAMPLES[type_].read_bytes()
    model = REGISTRY[type_]
    read = unpack_headers(model, json.loads(sent), type_) if model in RAW else unpack(sent, type_)
    assert not list(lost(json.loads(sent), json.loads(pack(read).body)))


def lost(sent: Any, kept: Any, at: str = "") -> Iterator[str]:
    """Give the places where `kept` has not what was sent. It may have more: fields that came later, by default."""
    if isinstance(sent, dict) and isinstance(kept, dict):
        for name, value in sent.items():
            yield from lost(value, kept.get(name), f"{at}.{name}")
    elif isinstance(sent, list) and isinstance(kept, list) and len(sent) == len(kept):
        for number, (one, other) in enumerate(zip(sent, kept, strict=True)):
            yield from lost(one, other, f"{at}[{number}]")
    elif sent != kept:
        yield at


@pytest.mark.parametrize("kept", [{}, {"a": [{}]}, {"a": [{"b": 2}]}, {"a": [{"b": 1}, {}]}, {"a": None}])
def test_what_is_lost_would_be_seen(kept: dict[str, Any]) -> None:
    assert list(lost({"a": [{"b": 1}]}, kept))


def test_every_message_type_has_a_sample() -> None:
    assert SAMPLES.keys() == REGISTRY.keys()
