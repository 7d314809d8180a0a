"""Messages as version 0.1 sent them: later versions must read them, for they wait in queues across an upgrade.

A sample is never changed. A new message type brings a new file; a new version of a type brings one beside the old.
"""

import json
from pathlib import Path

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
    kept = json.loads(pack(read).body)
    lost = {name for name in json.loads(sent) if kept.get(name) != json.loads(sent)[name]}
    assert not lost


def test_every_message_type_has_a_sample() -> None:
    assert SAMPLES.keys() == REGISTRY.keys()
