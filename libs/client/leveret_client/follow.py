"""Following one job: which bytes of which log to show next, what is missing, and when all is told. Pure.

Live pieces and stored history meet without gap or repeat because both carry offsets: each log knows how far it was
shown and how far it is known to reach. Whatever lies between is asked of the logsink's history.
"""

from dataclasses import dataclass, field

from leveret_proto.messages import (
    SETUP_LOG,
    Event,
    HistoryReply,
    JobEvent,
    JobView,
    LogEvent,
    TailChunk,
    TaskEvent,
    TaskState,
)
from leveret_proto.tails import skipped

_RAN = (TaskState.SUCCESS, TaskState.FAILED)


@dataclass(frozen=True, slots=True)
class LogBytes:
    """Bytes of a log to show; those of one log come in order and without gap."""

    attempt: int
    task: str
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Hole:
    """Bytes that exist but have not come: ask the history for this log from `offset`."""

    attempt: int
    task: str
    offset: int


@dataclass(slots=True)
class _Log:
    shown: int = 0
    #: How far the log is known to reach.
    reaches: int = 0
    #: Sealed or given up by the logsink: it will not grow.
    closed: bool = False
    #: History had nothing more at `shown`; asked again only when something new is heard of the log.
    dry: bool = False
    #: What comes next is the byte before a tail: the rest of its line is left out.
    cut: bool = False

    @property
    def told(self) -> bool:
        return self.closed and (self.shown >= self.reaches or self.dry)


@dataclass
class Following:
    """The state of following `job`. Feed it what arrives; it gives back what to show."""

    job: int
    #: The terminal event, or the job's view where the event was missed.
    end: JobEvent | JobView | None = None
    #: Of a log that was there before, show about so many bytes of the end, from the start of a line on; None: all.
    last: int | None = None
    _logs: dict[tuple[int, str], _Log] = field(default_factory=dict)
    _seen: dict[str, int] = field(default_factory=dict)

    def on_event(self, event: Event) -> bool:
        """Take an event; say whether it is news about this job (repeats and other jobs' are not)."""
        if not isinstance(event, JobEvent | TaskEvent | LogEvent) or event.facts.job != self.job:
            return False
        if event.seq <= self._seen.get(event.source, 0):
            return False
        self._seen[event.source] = event.seq
        if isinstance(event, LogEvent):
            self._reaches(event.attempt, event.task, event.bytes, closed=True)
        elif isinstance(event, JobEvent) and event.status.ended:
            self._ended(event)
        return True

    def on_view(self, view: JobView) -> bool:
        """Take the job as it stands; say whether it is the news of its end."""
        if not view.status.ended or self.end is not None:
            return False
        self._ended(view)
        return True

    def on_piece(self, chunk: TailChunk, body: bytes) -> LogBytes | None:
        """Take a live piece; give its part that was not shown yet, if it joins what was."""
        if chunk.job != self.job:
            return None
        log = self._reaches(chunk.attempt, chunk.task, chunk.offset + len(body), closed=chunk.end)
        return self._show(log, chunk.attempt, chunk.task, chunk.offset, body)

    def on_history(self, hole: Hole, data: bytes) -> LogBytes | None:
        """Take the stored bytes that were asked for."""
        log = self._logs[hole.attempt, hole.task]
        log.dry = not data
        log.reaches = max(log.reaches, hole.offset + len(data))
        return self._show(log, hole.attempt, hole.task, hole.offset, data)

    def on_list(self, reply: HistoryReply) -> None:
        """Take the list of stored logs."""
        for view in reply.logs:
            if (view.attempt, view.task) not in self._logs and self.last is not None and view.bytes > self.last:
                self._logs[view.attempt, view.task] = _Log(shown=view.bytes - self.last - 1, cut=True)
            self._reaches(view.attempt, view.task, view.bytes, closed=view.state != "open")

    def hole(self) -> Hole | None:
        """Give the first stretch to ask the history for."""
        for (attempt, task), log in self._logs.items():
            if log.shown < log.reaches and not log.dry:
                return Hole(attempt, task, log.shown)
        return None

    @property
    def finished(self) -> bool:
        """The job has ended, and every log of its last attempt is whole or given up."""
        return self.end is not None and not self.untold()

    def untold(self) -> list[str]:
        """Name the logs of the last attempt that have not been told to their end."""
        if self.end is None or self.end.attempt is None:
            return []
        return [name for (attempt, name), log in self._logs.items() if attempt == self.end.attempt and not log.told]

    def _ended(self, end: JobEvent | JobView) -> None:
        self.end = end
        if end.attempt is None:
            return
        # logs that must exist, heard of or not
        if end.timings is not None and end.timings.boot is not None:
            self._log(end.attempt, SETUP_LOG)
        for task in end.tasks:
            if task.state in _RAN:
                self._log(end.attempt, task.name)

    def _log(self, attempt: int, task: str) -> _Log:
        return self._logs.setdefault((attempt, task), _Log())

    def _reaches(self, attempt: int, task: str, end: int, *, closed: bool) -> _Log:
        log = self._log(attempt, task)
        if end > log.reaches or (closed and not log.closed):
            log.dry = False
        log.reaches = max(log.reaches, end)
        log.closed = log.closed or closed
        return log

    def _show(self, log: _Log, attempt: int, task: str, offset: int, data: bytes) -> LogBytes | None:
        if offset > log.shown:
            return None  # a hole lies before it; history will bring both
        fresh = data[log.shown - offset :]
        if fresh and log.cut:
            left_out = skipped(fresh, ends=log.shown + len(fresh) == log.reaches)
            log.cut = False
            log.shown += left_out
            fresh = fresh[left_out:]
        if not fresh:
            return None
        shown = LogBytes(attempt, task, log.shown, fresh)
        log.shown += len(fresh)
        return shown
