"""How the command shows things: colours on a terminal, plain lines in a pipe, JSON documents with `--json`."""

import asyncio
import json
import sys
from typing import Any

import click
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from leveret_client.follow import LogBytes
from leveret_client.text import RESET, TerminalText, one_line
from leveret_proto.messages import (
    SETUP_LOG,
    DeliveryEvent,
    Event,
    GroupEvent,
    JobEvent,
    JobStatus,
    JobView,
    LogEvent,
    SubmissionEvent,
    TaskEvent,
    TaskResult,
    TaskState,
)

STYLES = {
    "pending": "dim", "queued": "cyan", "running": "blue", "success": "green", "failed": "red",
    "timeout": "red", "cancelled": "yellow", "skipped": "dim", "sealed": "dim", "gap": "yellow",
    "rejected": "red", "delivered": "green", "retrying": "yellow",
}  # fmt: skip


class Output:
    """Where the command's results go. Progress and errors go to standard error, results to standard output."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(highlight=False, soft_wrap=True)
        self.errors = Console(stderr=True, highlight=False, soft_wrap=True)
        self.terminal = self.console.is_terminal and not as_json

    def document(self, kind: str, value: BaseModel | dict[str, Any]) -> None:
        """Print one line of JSON: `value` with its `type`."""
        given = value if isinstance(value, dict) else value.model_dump(mode="json", exclude_none=True)
        click.echo(json.dumps({"type": kind} | given, ensure_ascii=False))

    def say(self, text: str, style: str = "") -> None:
        """Tell a person something on standard error; a program gets its exit status and documents instead."""
        self.errors.print(Text(text, style=style))

    def line(self, *parts: tuple[str, str] | str) -> None:
        """Print a line of (text, style) parts."""
        self.console.print(Text.assemble(*parts))

    def row(self, *fields: str) -> None:
        """Print fields as one line: apart on a terminal, between tabs in a pipe."""
        click.echo(("  " if self.terminal else "\t").join(one_line(field) for field in fields))

    def event(self, event: Event, *, aside: bool = False) -> None:
        """Print an event as one line; `aside`: on standard error, beside a log."""
        if self.as_json:
            self.document(event.TYPE, event)
            return
        status, text = describe(event)
        who = "" if not isinstance(event, JobEvent | TaskEvent | LogEvent | DeliveryEvent) else f"#{event.facts.job} "
        at = event.at.strftime("%H:%M:%S ")
        rest = f" {one_line(text)}" if text else ""
        shown = Text.assemble((at, "dim"), who, (status, STYLES.get(status, "")), rest)
        (self.errors if aside else self.console).print(shown)

    def job(self, job: JobView) -> None:
        """Print a job as it stands."""
        if self.as_json:
            self.document("job", job)
            return
        facts = job.facts
        self.line((f"job {facts.job}", "bold"), f"  {one_line(facts.owner)}/{one_line(facts.project)}  ",
                  (job.status, STYLES[job.status]), f"  {job.reason}")  # fmt: skip
        rows = [
            ("detail", job.detail), ("note", facts.note), ("tags", ", ".join(facts.tags)),
            ("visibility", facts.visibility), ("attempt", job.attempt), ("worker", job.worker),
            ("submitted", _time(job.submitted_at)), ("started", _time(job.started_at)), ("ended", _time(job.ended_at)),
        ]  # fmt: skip
        for name, value in rows:
            if value:
                self.line((f"  {name:<12}", "dim"), one_line(str(value)))
        for task in job.tasks:
            self.task(task)
        for artifact in job.artifacts:
            self.line(
                ("  artifact    ", "dim"), f"{one_line(artifact.name)}  {size(artifact.bytes)}  {artifact.url or ''}"
            )

    def task(self, task: TaskResult) -> None:
        """Print how a task stands."""
        took = "" if task.seconds is None else f"  {task.seconds:.1f} s"
        code = "" if task.exit_status in (None, 0) else f"  exit status {task.exit_status}"
        self.line(("  task        ", "dim"), f"{task.name}  ", (task.state, STYLES[task.state]), f"{took}{code}")

    def jobs(self, jobs: tuple[JobView, ...]) -> None:
        """Print a list of jobs: a table on a terminal, tab-separated lines in a pipe."""
        if self.as_json:
            for job in jobs:
                self.document("job", job)
        elif self.terminal:
            table = Table("job", "project", "status", "reason", "submitted", "note", box=None, header_style="dim")
            for job in jobs:
                status = Text(job.status, style=STYLES[job.status])
                note = Text(one_line(job.facts.note or ""), overflow="ellipsis", no_wrap=True)
                project = Text(one_line(job.facts.project))
                table.add_row(str(job.facts.job), project, status, job.reason, _time(job.submitted_at), note)
            self.console.print(table)
        else:
            for job in jobs:
                fields = (str(job.facts.job), job.facts.project, job.status, job.reason, job.submitted_at.isoformat())
                click.echo("\t".join(one_line(field) for field in fields))


class LogOutput:
    """Shows logs as they come: raw bytes in a pipe, safe text under a heading for each task on a terminal."""

    def __init__(self, output: Output, *, headings: bool = True, task: str | None = None) -> None:
        """`task`: show only the log of this task."""
        self._output = output
        self._headings = headings
        self._task = task
        self._current: tuple[int, str] | None = None
        self._at_line_start = True
        self._texts: dict[tuple[int, str], TerminalText] = {}

    async def show(self, piece: LogBytes) -> None:
        """Show the next bytes of a log, however long the terminal or the pipe takes for them.

        In a thread: a reader who stalls must not keep the connection to the broker from its heartbeats.
        """
        if self._task is None or piece.task == self._task:
            await asyncio.to_thread(self._show, piece)

    def _show(self, piece: LogBytes) -> None:
        which = piece.attempt, piece.task
        if self._output.as_json:
            text = piece.data.decode("utf-8", "replace")
            place = {"attempt": piece.attempt, "task": piece.task, "offset": piece.offset, "bytes": len(piece.data)}
            self._output.document("log", place | {"text": text})
            return
        if which != self._current:
            self._head(which)
        if self._output.terminal:
            text = self._texts.setdefault(which, TerminalText()).feed(piece.data)
            sys.stdout.write(text)
        else:
            text = piece.data[-1:].decode("latin-1")
            sys.stdout.flush()
            sys.stdout.buffer.write(piece.data)
        sys.stdout.flush()
        if text:
            self._at_line_start = text.endswith("\n")

    def break_line(self) -> None:
        """End a line that a log left open on the terminal, before something else is shown there.

        In a pipe nothing else is: events go to standard error, and the log stays as it is, byte for byte.
        """
        if self._output.terminal:
            self._end_line()

    def _end_line(self) -> None:
        if not self._at_line_start:
            sys.stdout.write(RESET + "\n" if self._output.terminal else "\n")
            sys.stdout.flush()
            self._at_line_start = True

    def _head(self, which: tuple[int, str]) -> None:
        attempt, task = which
        self._current = which
        if self._headings:
            self._end_line()
            again = f" (attempt {attempt})" if attempt > 1 else ""
            name = "setup" if task == SETUP_LOG else one_line(task)
            self._output.line((f"── {name}{again} ──", "bold cyan"))


def describe(event: Event) -> tuple[str, str]:
    """Give an event's status word and the rest in words."""
    if isinstance(event, JobEvent):
        where = f" on {event.worker}" if event.worker and event.status in (JobStatus.QUEUED, JobStatus.RUNNING) else ""
        return event.status, f"{event.reason}{where}" + (f": {event.detail}" if event.detail else "")
    if isinstance(event, TaskEvent):
        code = f" (exit status {event.task.exit_status})" if event.task.state is TaskState.FAILED else ""
        took = "" if event.task.seconds is None else f" after {event.task.seconds:.1f} s"
        return event.task.state, f"task {event.task.name}{code}{took}"
    if isinstance(event, LogEvent):
        return event.status, f"log of {event.task}, {size(event.bytes)}" + (f": {event.detail}" if event.detail else "")
    if isinstance(event, DeliveryEvent):
        return event.status, f"{event.action}, try {event.tries}" + (f": {event.detail}" if event.detail else "")
    if isinstance(event, SubmissionEvent):
        return "rejected", f"{event.owner}/{event.project}: {event.message}"
    if isinstance(event, GroupEvent):
        group = event.group
        return group.state, f"group {group.group} of {len(group.jobs)} jobs"
    return event.state, f"worker {event.worker}" + (f": {event.detail}" if event.detail else "")


def size(count: int) -> str:
    """Give a number of bytes for people."""
    if count < 1024:
        return f"{count} bytes"
    amount = count / 1024
    for unit in ("KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def _time(at: Any) -> str:
    return "" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
