import json

import pytest

from leveret_proto.envelope import (
    JSON,
    MAX_BODY,
    RAW,
    Unreadable,
    pack,
    pack_bytes,
    unpack,
    unpack_as,
    unpack_headers,
)
from leveret_proto.manifest import Manifest
from leveret_proto.messages import CancelJob, LogChunk, ShowJob, Submission, TailChunk

GRANT = "0198c0de-1a2b-7c3d-8e4f-5a6b7c8d9e0f"


def test_a_message_comes_back_as_it_went() -> None:
    sent = Submission(manifest="image: debian/trixie", tags=("a", "b"), note="é")
    parcel = pack(sent)
    assert (parcel.type, parcel.content_type, parcel.headers) == ("job.submission.v1", JSON, {})
    assert unpack(parcel.body, parcel.type) == sent


def test_each_parcel_has_an_id_of_its_own() -> None:
    assert pack(CancelJob(job=1)).message_id != pack(CancelJob(job=1)).message_id


def test_a_manifest_comes_back_with_its_nulls() -> None:
    manifest = Manifest.model_validate({"image": "debian/trixie", "environment": {"EMPTY": None, "LIST": ["a"]}})
    assert Manifest.model_validate_json(manifest.model_dump_json(exclude_none=True)) == manifest


def test_unknown_fields_are_ignored() -> None:
    assert unpack(b'{"job": 7, "since": "version 9"}', "command.show.v1") == ShowJob(job=7)


@pytest.mark.parametrize("type_", [None, "", "job.event.v9", "no.such"])
def test_an_unknown_type_is_named_beside_the_known_ones(type_: str | None) -> None:
    with pytest.raises(Unreadable, match="unknown message type") as raised:
        unpack(b"{}", type_)
    assert repr(type_) in str(raised.value)
    assert "command.show.v1" in str(raised.value)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b'{"job": 0}', "job"),
        (b'{"job": "7; drop"}', "job"),
        (b'{"job": 9223372036854775808}', "job"),
        (b"{}", "job"),
        (b"[]", "body"),
        (b"", "body"),
        (b"\xff\xfe", "body"),
        (b'{"job": 7', "body"),
        (b"[" * 100_000, "body"),
    ],
)
def test_a_bad_field_is_named(body: bytes, named: str) -> None:
    with pytest.raises(Unreadable, match=f"^command.show.v1: {named}: "):
        unpack(body, "command.show.v1")


def test_a_fault_deep_inside_is_named_by_its_path_and_without_the_input() -> None:
    body = json.dumps({"worker": "w1", "session": GRANT, "tokens": [GRANT, "secret-looking-thing"]}).encode()
    with pytest.raises(Unreadable, match=r"tokens\.1: ") as raised:
        unpack(body, "worker.claim.v1")
    assert "secret-looking" not in str(raised.value)


def test_many_faults_are_counted_not_listed() -> None:
    body = json.dumps({"worker": "w1", "session": GRANT, "tokens": ["x"] * 200}).encode()
    with pytest.raises(Unreadable, match="and 195 more") as raised:
        unpack(body, "worker.claim.v1")
    assert len(str(raised.value)) < 1024


def test_an_oversized_body_is_refused_unread() -> None:
    with pytest.raises(Unreadable, match=f"body of {MAX_BODY + 1} bytes; the limit is {MAX_BODY}"):
        unpack(b" " * (MAX_BODY + 1), "command.show.v1")


def test_the_wanted_message_or_nothing() -> None:
    assert unpack_as(ShowJob, b'{"job": 7}', "command.show.v1") == ShowJob(job=7)
    with pytest.raises(Unreadable, match=r"expected command\.show\.v1, got command\.cancel\.v1"):
        unpack_as(ShowJob, b'{"job": 7}', "command.cancel.v1")


@pytest.mark.parametrize(
    "sent",
    [
        LogChunk(grant=GRANT, offset=0),
        LogChunk(grant=GRANT, offset=2**63 - 1, total=2**63 - 1, sha256="0" * 64),
        TailChunk(job=7, attempt=1, task="@setup", offset=4, end=True),
    ],
)
def test_raw_bytes_travel_with_their_position_as_headers(sent: LogChunk | TailChunk) -> None:
    parcel = pack_bytes(sent, b"\x00\xff")
    assert (parcel.body, parcel.content_type) == (b"\x00\xff", RAW)
    # what an AMQP header table carries as it is
    assert all(isinstance(value, int | str | bool) for value in parcel.headers.values())
    assert unpack_headers(type(sent), parcel.headers, parcel.type) == sent


def test_bad_headers_are_named() -> None:
    with pytest.raises(Unreadable, match=r"log\.chunk\.v1: offset: "):
        unpack_headers(LogChunk, {"grant": GRANT, "offset": -1}, "log.chunk.v1")
    with pytest.raises(Unreadable, match="expected"):
        unpack_headers(LogChunk, {}, None)
