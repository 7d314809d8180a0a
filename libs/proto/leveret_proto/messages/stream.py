"""Bytes on the move: log chunks, artifact chunks and the live tail. The body is raw bytes; headers say where they go.

Header tables in AMQP carry integers and strings; each class below is the header table of one message type.
"""

from typing import Annotated, ClassVar

from pydantic import Field

from leveret_proto.base import Attempt, Bytes, JobId, Message, Sha256, Token, Word

#: Longest body of a chunk, in bytes.
MAX_CHUNK = 256 * 1024


class LogChunk(Message):
    """Headers of a piece of a log. The routing key names worker, job, attempt and task; its body belongs at `offset`.

    The last chunk of a log (whose body may be empty) carries the whole log's length and SHA-256.
    """

    TYPE: ClassVar[str] = "log.chunk.v1"

    grant: Token
    offset: Bytes
    total: Bytes | None = None
    sha256: Sha256 | None = None


class ArtifactChunk(Message):
    """Headers of a piece of an artifact; `index` is its place in the manifest's list."""

    TYPE: ClassVar[str] = "artifact.chunk.v1"

    grant: Token
    index: int = Field(ge=0, lt=512)
    path: Annotated[str, Field(min_length=1, max_length=4096)]
    name: Annotated[str, Field(min_length=1, max_length=255)]
    offset: Bytes
    total: Bytes | None = None
    sha256: Sha256 | None = None


class TailChunk(Message):
    """Headers of a piece of a log as live followers get it. `end`: the log is sealed or given up, nothing follows.

    A piece without bytes says how far the log reaches by now.
    """

    TYPE: ClassVar[str] = "log.tail.v1"

    job: JobId
    attempt: Attempt
    task: Word
    offset: Bytes
    end: bool = False
