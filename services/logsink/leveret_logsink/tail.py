"""The live tail: whatever a log has gained without a hole goes out on `leveret.tail`, after it is stored.

Unconfirmed, and perhaps twice after a crash: each piece says its offset, and who missed one asks for the history. What
nobody listens to is not sent at all (listeners.py).
"""

import asyncio

import structlog

from leveret_logsink import streams
from leveret_logsink.listeners import Listeners
from leveret_logsink.storage import Storage, StorageAway
from leveret_logsink.streams import Stream
from leveret_proto import keys
from leveret_proto.base import JobFacts
from leveret_proto.envelope import pack_bytes
from leveret_proto.messages import TailChunk
from leveret_proto.topology import TAIL
from leveret_runtime.broker import Publisher
from leveret_runtime.db import Database
from leveret_runtime.waits import Pace, pause

log = structlog.get_logger(__name__)

#: Seconds between looks where nobody wakes us.
IDLE = 1.0
#: Logs looked at together.
BATCH = 200
#: Bytes of a message, and of one log in one round, so that a flood holds nobody else up for long.
PIECE = 64 * 1024
ROUND = 1024 * 1024
#: Seconds between looks while much is going on: what is new by then goes out together.
PACE = 0.02


class Tail:
    """Publishes what followers have not been sent. One instance a process."""

    def __init__(self, database: Database, storage: Storage) -> None:
        self._database = database
        self._storage = storage
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """There may be something new."""
        self._wake.set()

    async def run(self, publisher: Publisher, probing: Publisher, stop: asyncio.Event) -> None:
        """Publish on `publisher` (without confirms) until `stop` is set; `probing` (with confirms) tells for whom."""
        async with asyncio.TaskGroup() as tasks:
            listeners = Listeners(probing, tasks)
            pace = Pace(PACE)
            while not stop.is_set():
                self._wake.clear()
                await pace.turn()
                while not stop.is_set() and await self._publish_some(publisher, listeners):
                    await pace.turn()
                await pause(IDLE, self._wake, stop)

    async def _publish_some(self, publisher: Publisher, listeners: Listeners) -> bool:
        """Publish what is new of each log; say whether there was any."""
        async with self._database.connection() as on:
            rows = await on.fetch(
                f"""
                select {streams.COLUMNS}, s.tailed, j.facts
                from stream s join attempt a using (job, attempt, worker) join job j using (job)
                where s.kind = 'log' and not s.tail_ended and (s.tailed < s.contiguous or s.state <> 'open')
                order by s.id limit $1
                """,
                BATCH,
            )
        told = []
        for row in rows:
            stream, facts = streams.of_row(row), JobFacts.model_validate_json(row["facts"])
            try:
                told.append(await self._publish(stream, row["tailed"], facts, publisher, listeners))
            except StorageAway as away:  # tried again at the next look; the other logs don't wait for it
                log.error("a log can't be read", **stream.key._asdict(), reason=str(away))
        if told:
            await self._save(told)
        return bool(told)

    async def _publish(
        self, stream: Stream, tailed: int, facts: JobFacts, publisher: Publisher, listeners: Listeners
    ) -> tuple[int, int, bool]:
        """Publish a log's news; give (row, bytes told, whether its end was told)."""
        contiguous = stream.held.stored.contiguous
        if not listeners.heard(stream.id):
            tailed = contiguous
        until = min(contiguous, tailed + ROUND)
        while tailed < until:
            body = await asyncio.to_thread(self._storage.read, stream.key, tailed, min(PIECE, until - tailed))
            if not body:
                break  # the file lost bytes that were committed: the proof will find that out
            await _send(stream, facts, tailed, body, publisher)
            tailed += len(body)
        ended = stream.state != "open" and (tailed == contiguous or tailed < until)
        if ended:
            await _send(stream, facts, tailed, b"", publisher, end=True)
            listeners.ended(stream.id)
        else:
            listeners.look(stream.id, lambda probing: _send(stream, facts, tailed, b"", probing, probe=True))
        return stream.id, tailed if tailed == until else contiguous, ended

    async def _save(self, told: list[tuple[int, int, bool]]) -> None:
        async with self._database.transaction() as on:
            ids = [id_ for id_, _, _ in told]
            await on.execute("select from stream where id = any($1::bigint[]) order by id for update", ids)
            await on.execute(
                """
                update stream s set tailed = greatest(s.tailed, u.tailed), tail_ended = s.tail_ended or u.ended
                from unnest($1::bigint[], $2::bigint[], $3::boolean[]) as u(id, tailed, ended) where s.id = u.id
                """,
                ids, [tailed for _, tailed, _ in told], [ended for _, _, ended in told],
            )  # fmt: skip


async def _send(
    stream: Stream,
    facts: JobFacts,
    offset: int,
    body: bytes,
    publisher: Publisher,
    *,
    end: bool = False,
    probe: bool = False,
) -> None:
    key = stream.key
    parcel = pack_bytes(TailChunk(job=key.job, attempt=key.attempt, task=key.label, offset=offset, end=end), body)
    where = keys.tail(facts.visibility, facts.owner, key.job, key.label)
    await publisher.send(TAIL, where, parcel, app="logsink", mandatory=probe)
