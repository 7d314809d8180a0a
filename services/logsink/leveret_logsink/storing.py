"""Chunks from a partition's queue into storage: written, synced, committed, then acked, batch by batch.

What can't be stored now is kept here, unacked, and tried again. It is not given back to its queue: the broker makes a
dead letter of what it has delivered too often.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage

from leveret_logsink import chunks, streams
from leveret_logsink.assembly import Held, Lie, accept
from leveret_logsink.chunks import Chunk, Kind, StreamKey
from leveret_logsink.config import LogsinkConfig
from leveret_logsink.metrics import STORED_BYTES
from leveret_logsink.space import Space
from leveret_logsink.storage import Storage, StorageAway, StorageFull
from leveret_logsink.streams import Stream
from leveret_proto import topology
from leveret_proto.envelope import Unreadable
from leveret_runtime.broker import Consumer, Publisher, settle
from leveret_runtime.db import Connection, Database
from leveret_runtime.dead import file_dead
from leveret_runtime.failpoints import failpoint
from leveret_runtime.waits import pause

log = structlog.get_logger(__name__)

#: Batches under way at the same time: each holds a database connection while its bytes are synced.
WRITERS = 4
#: Seconds until a batch is tried again whose streams can't be written though there is room for others.
RETRY = 5.0

Readable = Sequence[tuple[AbstractIncomingMessage, Chunk]]


@dataclass
class _Batch:
    """Deliveries on their way in."""

    kept: list[AbstractIncomingMessage] = field(default_factory=list)
    refused: list[tuple[AbstractIncomingMessage, str]] = field(default_factory=list)
    held: dict[StreamKey, Held] = field(default_factory=dict)
    writes: dict[StreamKey, list[tuple[int, memoryview]]] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """How much of it is written."""
        return sum(len(piece) for pieces in self.writes.values() for _, piece in pieces)


class Storing:
    """Stores chunks of both kinds. `stored` is called after every commit: whether a stream may be whole by now."""

    def __init__(
        self, config: LogsinkConfig, database: Database, storage: Storage, space: Space, stored: Callable[[bool], None]
    ) -> None:
        self._config = config
        self._database = database
        self._storage = storage
        self._space = space
        self._stored = stored
        self._writers = asyncio.Semaphore(WRITERS)

    async def open(self, on: AbstractConnection, kind: Kind, partition: int, stop: asyncio.Event) -> Consumer | None:
        """Begin to consume a partition, of which another logsink may be the active one; None while there is no room."""
        if not self._space.condition.open:
            return None
        queue = topology.queue(_queue(kind, partition))
        return await Consumer.open(on, queue.name, prefetch=queue.prefetch, stop=stop)

    async def run(
        self,
        on: AbstractConnection,
        consumer: Consumer | None,
        publisher: Publisher,
        kind: Kind,
        partition: int,
        stop: asyncio.Event,
    ) -> None:
        """Store what `consumer` (None: one on `on`, once there is room) delivers until `stop` is set.

        `publisher` takes the dead letters.
        """
        most = topology.queue(_queue(kind, partition)).prefetch - 1
        while consumer is None and await self._space.room(stop):
            consumer = await self.open(on, kind, partition, stop)
        if consumer is None:
            return
        async for message in consumer:
            await self._take(kind, partition, [message, *consumer.ready(most)], publisher, stop)

    async def _take(
        self,
        kind: Kind,
        partition: int,
        messages: Sequence[AbstractIncomingMessage],
        publisher: Publisher,
        stop: asyncio.Event,
    ) -> None:
        readable: list[tuple[AbstractIncomingMessage, Chunk]] = []
        refused: list[tuple[AbstractIncomingMessage, str]] = []
        for message in messages:
            try:
                readable.append((message, _read(kind, partition, message)))
            except Unreadable as error:
                refused.append((message, str(error)))
        batch = await self._store_in_time(kind, readable, stop) if readable else _Batch()
        if batch is None:
            return
        if readable:
            self._stored(any(held.complete for held in batch.held.values()))
            failpoint(f"logsink.{kind}.between-commit-and-publish")
        for message, reason in [*refused, *batch.refused]:
            await file_dead(publisher, message, _queue(kind, partition), reason, app="logsink")
        failpoint(f"logsink.{kind}.before-ack")
        if batch.kept:
            await settle(batch.kept[-1], multiple=True)

    async def _store_in_time(self, kind: Kind, readable: Readable, stop: asyncio.Event) -> _Batch | None:
        """Store what can be, as soon as the storage takes it; None where `stop` was set before."""
        while await self._space.room(stop):
            try:
                batch = await self._store(kind, readable)
            except StorageFull as full:
                self._space.failed(full)
            except StorageAway as away:
                log.error("waiting", waits_for=str(away), seconds=RETRY)
                await pause(RETRY, stop)
            else:
                self._space.written()
                STORED_BYTES.labels(kind).inc(batch.bytes)
                return batch
            if stop.is_set():
                break
        return None

    async def _store(self, kind: Kind, readable: Readable) -> _Batch:
        names = {chunk.key: chunk.name for _, chunk in readable}
        async with self._writers, self._database.connection() as on:
            while True:
                await streams.begin(on, names, self._config.end_wait)
                async with on.transaction():
                    rows = await streams.lock(on, names)
                    if len(rows) == len(names):  # else retention removed a row between the two
                        batch = await self._store_locked(on, readable, rows)
                        failpoint(f"logsink.{kind}.before-commit")
                        break
        return batch

    async def _store_locked(
        self,
        on: Connection,
        readable: Readable,
        rows: dict[StreamKey, Stream],
    ) -> _Batch:
        batch = _Batch()
        for message, chunk in readable:
            try:
                self._plan(chunk, rows[chunk.key], batch)
                batch.kept.append(message)
            except Lie as lie:
                batch.refused.append((message, str(lie)))
        if batch.writes:
            await asyncio.to_thread(self._storage.write, batch.writes)
        await streams.save(on, [(rows[key].id, held) for key, held in batch.held.items() if held != rows[key].held])
        return batch

    def _plan(self, chunk: Chunk, row: Stream, batch: _Batch) -> None:
        """Note what `chunk` changes. Raises Lie."""
        if chunk.name != row.name:
            raise Lie("another name for an artifact that has begun")
        limit = self._config.log_limit if chunk.key.kind == "log" else self._config.artifact_limit
        before = batch.held.get(chunk.key, row.held)
        batch.held[chunk.key], parts = accept(before, chunk.offset, len(chunk.body), chunk.end, limit)
        body = memoryview(chunk.body)
        for start, end in parts:
            piece = body[start - chunk.offset : end - chunk.offset]
            batch.writes.setdefault(chunk.key, []).append((start, piece))


def _queue(kind: Kind, partition: int) -> str:
    return topology.logsink_logs(partition) if kind == "log" else topology.logsink_artifacts(partition)


def _read(kind: Kind, partition: int, message: AbstractIncomingMessage) -> Chunk:
    return chunks.read(kind, partition, message.routing_key or "", message.type, message.headers or {}, message.body)
