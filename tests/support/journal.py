"""An observer of Leveret's events: it keeps all it hears and knows what must hold of it."""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import aiohttp
from aio_pika.abc import AbstractIncomingMessage
from pydantic import SecretStr

from leveret_proto.envelope import unpack
from leveret_proto.messages import (
    SETUP_LOG,
    DeliveryEvent,
    JobEvent,
    JobStatus,
    LogEvent,
    Message,
    NumberedEvent,
    TaskEvent,
    TaskState,
)
from leveret_runtime.away import backoff, keep_going
from leveret_runtime.broker import Consumer, connection, settle

LIMIT = 60.0
E = TypeVar("E", bound=NumberedEvent)
_COURSE = {
    None: {"pending"},
    "pending": {"pending", "queued", "failed", "cancelled"},
    "queued": {"pending", "queued", "running", "failed", "success", "timeout", "cancelled"},
    "running": {"pending", "running", "success", "failed", "timeout", "cancelled"},
}


@dataclass
class Journal:
    """Events by job, source and number. A repeat must be the same message to the byte."""

    told: dict[int, dict[str, dict[int, NumberedEvent]]] = field(default_factory=dict)
    unnumbered: list[Message] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    _bodies: dict[tuple[int, str, int], bytes] = field(default_factory=dict)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def observe(self, url: str, queue: str, stop: asyncio.Event) -> None:
        """Take the events in `queue` until `stop` is set, over as many connections as that takes."""
        await keep_going(lambda: self._session(url, queue, stop), stop)

    async def _session(self, url: str, queue: str, stop: asyncio.Event) -> None:
        async with connection(SecretStr(url), "journal") as connected:
            consumer = await Consumer.open(connected, queue, prefetch=100, stop=stop)
            async for delivery in consumer:
                await self._take(delivery)
                await settle(delivery)

    async def _take(self, delivery: AbstractIncomingMessage) -> None:
        event = unpack(delivery.body, delivery.type)
        async with self._news:
            if isinstance(event, NumberedEvent):
                self.note(event, delivery.body)
            else:
                self.unnumbered.append(event)
            self._news.notify_all()

    def note(self, event: NumberedEvent, body: bytes) -> None:
        """Keep an event that came as `body`."""
        where = (event.facts.job, event.source, event.seq)
        if self._bodies.setdefault(where, body) != body:
            self.faults.append(f"job {where[0]}: two events of {where[1]} have number {where[2]}")
        self.told.setdefault(event.facts.job, {}).setdefault(event.source, {})[event.seq] = event

    async def until(self, holds: Callable[[], bool], what: str, limit: float = LIMIT) -> None:
        """Wait until `holds`. Fails with `what` was waited for."""
        try:
            async with asyncio.timeout(limit), self._news:
                await self._news.wait_for(holds)
        except TimeoutError:
            raise AssertionError(f"not within {limit:g} s: {what}") from None

    def of(self, job: int, kind: type[E]) -> list[E]:
        """The job's events of one kind, by number, each once."""
        numbered = [e for source in self.told.get(job, {}).values() for _, e in sorted(source.items())]
        return [event for event in numbered if isinstance(event, kind)]

    async def event(self, job: int, kind: type[E], wanted: Callable[[E], bool], limit: float = LIMIT) -> E:
        """Wait for an event of `kind` about `job` for which `wanted` holds, and give the first."""

        def found() -> list[E]:
            return [event for event in self.of(job, kind) if wanted(event)]

        await self.until(lambda: bool(found()), f"{kind.__name__} of job {job}", limit)
        return found()[0]

    async def task_runs(self, job: int, task: str, attempt: int = 1) -> None:
        """Wait until the task of that attempt runs."""
        await self.event(
            job, TaskEvent, lambda e: e.attempt == attempt and (e.task.name, e.task.state) == (task, TaskState.RUNNING)
        )

    async def ended(self, job: int, limit: float = LIMIT) -> JobEvent:
        """Wait for the job's end."""
        return await self.event(job, JobEvent, lambda event: event.status.ended, limit)

    async def logs(self, end: JobEvent, limit: float = LIMIT) -> dict[str, LogEvent]:
        """Wait until every log that the last attempt owes is sealed or given up; give what was last said of each."""
        job = end.facts.job
        owed = {task.name for task in end.tasks if task.state in (TaskState.SUCCESS, TaskState.FAILED)} | {SETUP_LOG}

        def said() -> dict[str, LogEvent]:
            return {event.task: event for event in self.of(job, LogEvent) if event.attempt == end.attempt}

        await self.until(lambda: said().keys() >= owed, f"logs {sorted(owed)} of job {job}", limit)
        return said()

    async def delivered(self, job: int, count: int = 1, limit: float = LIMIT) -> list[DeliveryEvent]:
        """Wait until `count` deliveries of the job went out; give the events that say so."""

        def found() -> list[DeliveryEvent]:
            return [event for event in self.of(job, DeliveryEvent) if event.status == "delivered"]

        await self.until(lambda: len(found()) >= count, f"{count} deliveries of job {job}", limit)
        return found()

    def check(self, job: int) -> None:
        """What must hold of an ended job's events: no gap, no conflict, one end, and nothing after it."""
        assert self.faults == []
        for source, numbered in self.told[job].items():
            assert sorted(numbered) == list(range(1, len(numbered) + 1)), f"job {job}: gap in {source}'s numbers"
        statuses = [event.status for event in self.of(job, JobEvent)]
        assert sum(status.ended for status in statuses) == 1, f"job {job}: {statuses}"
        before: JobStatus | None = None
        for status in statuses:
            assert status in _COURSE.get(before, ()), f"job {job}: {before} → {status} in {statuses}"
            before = status


async def fetch(url: str) -> bytes:
    """What the logsink serves there.

    An artifact is safe at the broker when its job ends, and on the server a moment later, of which no event tells:
    it is asked for until then, and while a logsink that was killed is not back yet.
    """
    async with asyncio.timeout(LIMIT), aiohttp.ClientSession() as http:
        for delay in backoff():
            with contextlib.suppress(aiohttp.ClientConnectorError):
                async with http.get(url) as response:
                    if response.status != 404:
                        assert response.status == 200, f"{url}: {response.status}"
                        return await response.read()
            await asyncio.sleep(delay)
    raise AssertionError("unreachable")


async def proven(log: LogEvent) -> bytes:
    """The bytes of a log that must be sealed, and be served as they were sealed."""
    assert log.status == "sealed", log
    assert log.url is not None
    served = await fetch(log.url)
    assert (len(served), hashlib.sha256(served).hexdigest()) == (log.bytes, log.sha256)
    return served
