"""Where an attempt's chunks go: log and artifact chunks with their routing keys, confirmed."""

from collections.abc import Awaitable, Callable

from leveret_proto import keys
from leveret_proto.envelope import pack_bytes
from leveret_proto.messages import ArtifactChunk, Grant, LogChunk
from leveret_proto.topology import ARTIFACTS, LOGS
from leveret_worker.metrics import SENT_BYTES
from leveret_worker.outlet import Outlet


def log_sender(bulk: Outlet, grant: Grant, name: str) -> Callable[[LogChunk, bytes], Awaitable[None]]:
    """Give what sends the chunks of the log `name`; it returns when a chunk is confirmed."""
    key = keys.log_chunk(grant.worker, grant.facts.job, grant.attempt, name)

    async def send(chunk: LogChunk, data: bytes) -> None:
        await bulk.send(LOGS, key, pack_bytes(chunk, data))
        SENT_BYTES.labels("log").inc(len(data))

    return send


def artifact_sender(bulk: Outlet, grant: Grant) -> Callable[[ArtifactChunk, bytes], Awaitable[None]]:
    """Give what sends the grant's artifact chunks; it returns when a chunk is confirmed."""
    key = keys.artifact_chunk(grant.worker, grant.facts.job, grant.attempt)

    async def send(chunk: ArtifactChunk, data: bytes) -> None:
        await bulk.send(ARTIFACTS, key, pack_bytes(chunk, data))
        SENT_BYTES.labels("artifact").inc(len(data))

    return send
