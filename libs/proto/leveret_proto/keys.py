"""Routing keys: one function for every kind of key that Leveret publishes under, and the parsers of those it trusts.

A word that topic permissions guard (the owner of a submission, the worker of a status) is believed from the key, never
from a message's body.
"""

from typing import NamedTuple

from leveret_proto.words import WordError, escape, join, unescape

#: Logs and artifacts spread over this many single-active-consumer queues, by job id.
PARTITIONS = 16


class RoutingKeyError(ValueError):
    """A routing key that does not have the form of its exchange."""


class SubmissionKey(NamedTuple):
    """`leveret.submit`: who the job is for."""

    owner: str
    project: str


class AttemptKey(NamedTuple):
    """`leveret.status`: whose attempt a worker speaks of."""

    worker: str
    job: int
    attempt: int


class ChunkKey(NamedTuple):
    """`leveret.logs` and `leveret.artifacts` (where `task` is empty)."""

    partition: int
    worker: str
    job: int
    attempt: int
    task: str


class CommandKey(NamedTuple):
    """`leveret.commands`: the command and the owner on whose behalf it is given."""

    command: str
    owner: str


def submission(owner: str, project: str) -> str:
    return join(escape(owner), escape(project))


def partition(job: int) -> int:
    return job % PARTITIONS


def worker(name: str) -> str:
    return escape(name)


def grant(capability_key: str, worker: str, session: str) -> str:
    return join(capability_key, escape(worker), escape(session))


def control(worker: str, session: str) -> str:
    return join(escape(worker), escape(session))


def status(worker: str, job: int, attempt: int) -> str:
    return join(escape(worker), str(job), str(attempt))


def command(name: str, owner: str) -> str:
    return join(escape(name), escape(owner))


def command_word(type_: str) -> str:
    """Give the routing word of a command's type: `command.dead-list.v1` goes under `dead`."""
    return type_.split(".")[1].partition("-")[0]


def log_chunk(worker: str, job: int, attempt: int, task: str) -> str:
    return join(f"{partition(job):02}", escape(worker), str(job), str(attempt), escape(task))


def artifact_chunk(worker: str, job: int, attempt: int) -> str:
    return join(f"{partition(job):02}", escape(worker), str(job), str(attempt))


def tail(visibility: str, owner: str, job: int, task: str) -> str:
    return join(visibility, escape(owner), str(job), escape(task))


def job_event(visibility: str, owner: str, job: int, status: str) -> str:
    return join("job", visibility, escape(owner), str(job), status)


def task_event(visibility: str, owner: str, job: int, task: str, status: str) -> str:
    return join("task", visibility, escape(owner), str(job), escape(task), status)


def log_event(visibility: str, owner: str, job: int, task: str, status: str) -> str:
    return join("log", visibility, escape(owner), str(job), escape(task), status)


def delivery_event(visibility: str, owner: str, job: int, status: str) -> str:
    return join("delivery", visibility, escape(owner), str(job), status)


def submission_event(visibility: str, owner: str) -> str:
    return join("submission", visibility, escape(owner), "rejected")


def group_event(visibility: str, owner: str, group: str, state: str) -> str:
    return join("group", visibility, escape(owner), escape(group), state)


def worker_event(name: str, state: str) -> str:
    return join("worker", escape(name), state)


def parse_submission(key: str) -> SubmissionKey:
    """Read `<owner>.<project>`. Raises RoutingKeyError."""
    owner, project = _words(key, 2, "<owner>.<project>")
    return SubmissionKey(owner, project)


def parse_status(key: str) -> AttemptKey:
    """Read `<worker>.<job>.<attempt>`. Raises RoutingKeyError."""
    name, job, attempt = _words(key, 3, "<worker>.<job>.<attempt>")
    return AttemptKey(name, _number(key, job), _number(key, attempt))


def parse_log_chunk(key: str) -> ChunkKey:
    """Read `<partition>.<worker>.<job>.<attempt>.<task>`. Raises RoutingKeyError."""
    part, name, job, attempt, task = _words(key, 5, "<partition>.<worker>.<job>.<attempt>.<task>")
    return _chunk_key(key, part, name, job, attempt, task)


def parse_artifact_chunk(key: str) -> ChunkKey:
    """Read `<partition>.<worker>.<job>.<attempt>`. Raises RoutingKeyError."""
    part, name, job, attempt = _words(key, 4, "<partition>.<worker>.<job>.<attempt>")
    return _chunk_key(key, part, name, job, attempt, "")


def parse_command(key: str) -> CommandKey:
    """Read `<command>.<owner>`. Raises RoutingKeyError."""
    name, owner = _words(key, 2, "<command>.<owner>")
    return CommandKey(name, owner)


def parse_worker(key: str) -> str:
    """Read `<worker>`. Raises RoutingKeyError."""
    return _words(key, 1, "<worker>")[0]


def _chunk_key(key: str, part: str, name: str, job: str, attempt: str, task: str) -> ChunkKey:
    read = ChunkKey(_number(key, part), name, _number(key, job), _number(key, attempt), task)
    if read.partition != partition(read.job):
        raise RoutingKeyError(f"routing key {key!r}: job {read.job} belongs to partition {partition(read.job):02}")
    return read


def _words(key: str, count: int, form: str) -> list[str]:
    words = key.split(".")
    if len(words) != count:
        raise RoutingKeyError(f"routing key {key[:80]!r} does not have the form {form}")
    try:
        return [unescape(word) for word in words]
    except (WordError, UnicodeDecodeError) as error:
        raise RoutingKeyError(f"routing key {key[:80]!r}: {error}") from None


def _number(key: str, word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) <= 19 and int(word) < 2**63):
        raise RoutingKeyError(f"routing key {key[:80]!r}: {word[:20]!r} is not a number")
    return int(word)
