"""What one worker session says over AMQP, and what it makes of what it is told. Builds do nothing: they end at once."""

import asyncio
import hashlib
import platform
from collections.abc import Collection, Sequence
from uuid import uuid4

from aio_pika.abc import AbstractChannel, AbstractQueue

from leveret_proto import keys
from leveret_proto.capability import Capabilities, ImageOffer, offered_keys
from leveret_proto.envelope import pack, pack_bytes
from leveret_proto.messages import (
    AttemptState,
    AttemptStatus,
    Grant,
    HeldGrant,
    JobStatus,
    LogChunk,
    LogDigest,
    Reason,
    Report,
    Settle,
    TaskResult,
    TaskState,
    WorkerBeat,
    WorkerClaim,
)
from leveret_proto.messages import Message as Said
from leveret_proto.messages.state import SETUP_LOG
from leveret_proto.topology import CONTROL, LOGS, STATUS, WORK, WORKERS
from leveret_runtime.broker import Publisher

#: Seconds between beats.
BEAT = 10.0
#: SHA-256 of nothing.
EMPTY = hashlib.sha256().hexdigest()


class PlayedSession:
    """One session's state. Its slots are busy until it claims them."""

    def __init__(self, publisher: Publisher, name: str, images: Sequence[str], slots: int) -> None:
        self.name = name
        self.session = str(uuid4())
        self._publisher = publisher
        self._slots = slots
        self._tokens: set[str] = set()
        #: What was last said of each grant; None: nothing yet.
        self._held: dict[str, tuple[HeldGrant, AttemptStatus | None]] = {}
        arch = platform.machine()
        self._offer = Capabilities(images=tuple(ImageOffer(arch=arch, name=image, digest="0" * 64) for image in images))
        self._spool = str(uuid4())
        self._beats = 0
        #: Logs that were not sent yet: (grant, name).
        self._owed: list[tuple[Grant, str]] = []

    async def bind(self, channel: AbstractChannel) -> AbstractQueue:
        """Declare the session's own queue, and bind it for what the session offers."""
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(CONTROL, keys.control(self.name, self.session))
        for key in offered_keys(self._offer):
            await queue.bind(WORK, keys.grant(key, self.name, self.session))
        return queue

    def new_tokens(self, count: int) -> tuple[str, ...]:
        """Free `count` slots; the next beat names their tokens."""
        tokens = tuple(str(uuid4()) for _ in range(count))
        self._tokens.update(tokens)
        return tokens

    async def claim(self, tokens: Collection[str]) -> None:
        """Say at once that these slots are free."""
        claim = WorkerClaim(worker=self.name, session=self.session, tokens=tuple(tokens))
        await self._publisher.send(WORKERS, keys.worker(self.name), pack(claim), app=self.name)

    async def beat(self, *, closing: bool = False) -> None:
        """Say all there is to say; `closing`: for the last time."""
        self._beats += 1
        beat = WorkerBeat(
            worker=self.name, session=self.session, spool=self._spool, beat=self._beats, capabilities=self._offer,
            slots=self._slots, tokens=() if closing else tuple(self._tokens),
            held=tuple(held for held, _ in self._held.values()), closing=closing,
        )  # fmt: skip
        await self._publisher.send(WORKERS, keys.worker(self.name), pack(beat), app=self.name)

    async def take(self, said: Said) -> Grant | None:
        """Take a message; give the grant if it is a new one. A repeated one is answered with its last status."""
        if isinstance(said, Grant):
            if said.grant not in self._held:
                self._tokens.discard(said.token)
                held = HeldGrant(
                    grant=said.grant, job=said.facts.job, attempt=said.attempt, state=AttemptState.GRANTED, seq=0
                )
                self._held[said.grant] = held, None
                return said
            last = self._held[said.grant][1]
            if last is not None:
                await self._send(last)
        elif isinstance(said, Settle):
            for grant in said.grants:
                self._held.pop(grant, None)
        elif isinstance(said, Report):
            await self.beat()
        return None

    async def status(self, grant: Grant, state: AttemptState, *logs: LogDigest) -> None:
        """Report an attempt as running, or as ended in success. It owes the logs that are not given: `end_logs`."""
        held, _ = self._held[grant.grant]
        ended = state is AttemptState.ENDED
        given = {log.task for log in logs}
        empty = [name for name in (SETUP_LOG, *(task.name for task in grant.manifest.tasks)) if name not in given]
        if ended:
            logs += tuple(LogDigest(task=name, bytes=0, sha256=EMPTY) for name in empty)
            self._owed += [(grant, name) for name in empty]
        task_state = TaskState.SUCCESS if ended else TaskState.RUNNING
        status = AttemptStatus(
            grant=grant.grant, job=grant.facts.job, attempt=grant.attempt, worker=self.name, session=self.session,
            seq=held.seq + 1, state=state, result=JobStatus.SUCCESS if ended else None,
            reason=Reason.COMPLETED if ended else None,
            tasks=tuple(TaskResult(name=task.name, state=task_state) for task in grant.manifest.tasks), logs=logs,
        )  # fmt: skip
        self._held[grant.grant] = held.model_copy(update={"state": state, "seq": status.seq}), status
        await self._send(status)

    async def end_logs(self) -> None:
        """Send the ends of the empty logs that are owed; within 30 s of the attempt's end, or they count as lost."""
        owed, self._owed = self._owed, []
        async with asyncio.TaskGroup() as group:
            for grant, name in owed:
                group.create_task(self._end_log(grant, name))

    async def _end_log(self, grant: Grant, name: str) -> None:
        """Send the last chunk of a log, which is the first as well: else the log would count as lost."""
        chunk = LogChunk(grant=grant.grant, offset=0, total=0, sha256=EMPTY)
        key = keys.log_chunk(self.name, grant.facts.job, grant.attempt, name)
        await self._publisher.send(LOGS, key, pack_bytes(chunk, b""), app=self.name)

    async def _send(self, status: AttemptStatus) -> None:
        key = keys.status(self.name, status.job, status.attempt)
        await self._publisher.send(STATUS, key, pack(status), app=self.name)
