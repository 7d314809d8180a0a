"""Chunks as they arrive: routing key, headers and body of a message, read and checked. Pure.

Whose chunk it is comes from the routing key alone, which the broker lets only that worker publish under.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from leveret_logsink.assembly import End
from leveret_proto import keys
from leveret_proto.envelope import Unreadable, unpack_headers
from leveret_proto.messages import MAX_CHUNK, ArtifactChunk, LogChunk

Kind = Literal["log", "artifact"]

_MAX_ATTEMPT = 2**31


class StreamKey(NamedTuple):
    """Names a stream: nothing of another attempt or another worker ever gets into it."""

    kind: Kind
    job: int
    attempt: int
    worker: str
    #: A log's task, or an artifact's index in decimal digits.
    label: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """A readable chunk: `body` belongs at `offset` of the stream `key`."""

    key: StreamKey
    offset: int
    body: bytes
    end: End | None
    #: An artifact's file name.
    name: str | None = None


def read(kind: Kind, partition: int, key: str, type_: str | None, headers: Mapping[str, Any], body: bytes) -> Chunk:
    """Read a message that came from the `kind` queue of `partition`.

    Raises:
        Unreadable: with a text that says what is wrong.
    """
    if len(body) > MAX_CHUNK:
        raise Unreadable(f"chunk of {len(body)} bytes; the limit is {MAX_CHUNK}")
    parse = keys.parse_log_chunk if kind == "log" else keys.parse_artifact_chunk
    try:
        whose = parse(key)
    except keys.RoutingKeyError as error:
        raise Unreadable(str(error)) from None
    if whose.partition != partition:
        raise Unreadable(f"a chunk of partition {whose.partition:02} in the queue of partition {partition:02}")
    if not (whose.job > 0 and 0 < whose.attempt < _MAX_ATTEMPT):
        raise Unreadable(f"job {whose.job}, attempt {whose.attempt}: both count from 1, attempts below {_MAX_ATTEMPT}")
    return _read_log(whose, type_, headers, body) if kind == "log" else _read_artifact(whose, type_, headers, body)


def _read_log(whose: keys.ChunkKey, type_: str | None, headers: Mapping[str, Any], body: bytes) -> Chunk:
    told = unpack_headers(LogChunk, dict(headers), type_)
    _storable(worker=whose.worker, task=whose.task)
    key = StreamKey("log", whose.job, whose.attempt, whose.worker, whose.task)
    return Chunk(key, told.offset, body, _end(told.total, told.sha256))


def _read_artifact(whose: keys.ChunkKey, type_: str | None, headers: Mapping[str, Any], body: bytes) -> Chunk:
    told = unpack_headers(ArtifactChunk, dict(headers), type_)
    _storable(worker=whose.worker, name=told.name)
    key = StreamKey("artifact", whose.job, whose.attempt, whose.worker, str(told.index))
    return Chunk(key, told.offset, body, _end(told.total, told.sha256), told.name)


def _end(total: int | None, sha256: str | None) -> End | None:
    if total is not None and sha256 is not None:
        return End(total, sha256)
    if total is None and sha256 is None:
        return None
    raise Unreadable("the last chunk carries both total and sha256, any other neither")


def _storable(**texts: str) -> None:
    """PostgreSQL holds no NUL, and no encoding of ours holds half a surrogate pair."""
    for what, text in texts.items():
        if not text.isprintable():
            raise Unreadable(f"{what}: has characters that can't be printed")
