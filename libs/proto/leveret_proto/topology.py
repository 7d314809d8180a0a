"""The broker's shape: every exchange, and the queue table. Nothing is declared anywhere but from here.

Types: quorum unless said. Delivery limit 50, so that a few crashes of a consumer never dead-letter the innocents it had
prefetched. A byte bound with `reject-publish` is back-pressure: the publisher is told and repeats.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from leveret_proto.keys import PARTITIONS
from leveret_proto.messages.state import JobStatus

SUBMIT = "leveret.submit"
JOBS = "leveret.jobs"
WORKERS = "leveret.workers"
WORK = "leveret.work"
CONTROL = "leveret.control"
RESEND = "leveret.resend"
STATUS = "leveret.status"
COMMANDS = "leveret.commands"
LOGS = "leveret.logs"
ARTIFACTS = "leveret.artifacts"
TAIL = "leveret.tail"
RECORD = "leveret.record"
EVENTS = "leveret.events"
NOTIFY = "leveret.notify"
DEAD = "leveret.dead"

MIB = 1024 * 1024


@dataclass(frozen=True)
class Exchange:
    """A durable topic exchange. `key` is the form of its routing keys; `messages` are the types that cross it."""

    name: str
    about: str
    key: str
    messages: tuple[str, ...]
    #: Whether people other than Leveret's own services may be let in.
    public: bool = False


EXCHANGES: tuple[Exchange, ...] = (
    Exchange(SUBMIT, "Manifests in.", "<owner>.<project>", ("job.submission.v1",), public=True),
    Exchange(JOBS, "Accepted jobs, by what they require.", "<arch>.<image>.<kvm or any>", ("job.ready.v1",)),
    Exchange(WORKERS, "Claims and beats.", "<worker>", ("worker.beat.v1", "worker.claim.v1")),
    Exchange(WORK, "Grants.", "<arch>.<image>.<kvm or any>.<worker>.<session>", ("work.grant.v1",)),
    Exchange(
        CONTROL,
        "Orders to one worker session.",
        "<worker>.<session>",
        (
            "control.settle.v1", "control.cancel.v1", "control.abandon.v1",
            "control.drain.v1", "control.resume.v1", "control.refuse.v1", "control.report.v1",
        ),
    ),
    Exchange(RESEND, "What logsink misses of logs, to whoever sent them.", "<worker>", ("log.resend.v1",)),
    Exchange(STATUS, "Snapshots of attempts.", "<worker>.<job>.<attempt>", ("attempt.status.v1",)),
    Exchange(
        COMMANDS,
        "Commands; answers go to `reply_to`.",
        "<command>.<owner>",
        (
            "command.cancel.v1", "command.show.v1", "command.list.v1", "command.retry.v1", "command.priority.v1",
            "command.explain.v1", "command.workers.v1", "command.group.v1",
            "command.secrets-key.v1", "command.secrets-add.v1", "command.secrets-list.v1", "command.secrets-rm.v1",
            "command.worker-drain.v1", "command.worker-resume.v1",
            "command.dead-list.v1", "command.dead-show.v1", "command.dead-retry.v1", "command.dead-drop.v1",
            "command.history.v1", "command.links.v1", "command.replay.v1",
        ),
        public=True,
    ),
    Exchange(LOGS, "Log chunks.", "<partition>.<worker>.<job>.<attempt>.<task>", ("log.chunk.v1",)),
    Exchange(ARTIFACTS, "Artifact chunks.", "<partition>.<worker>.<job>.<attempt>", ("artifact.chunk.v1",)),
    Exchange(TAIL, "Logs, live.", "<visibility>.<owner>.<job>.<task>", ("log.tail.v1",), public=True),
    Exchange(
        RECORD,
        "Events, confirmed, for services and replay.",
        "as leveret.events",
        (
            "job.event.v1", "task.event.v1", "log.event.v1",
            "delivery.event.v1", "submission.event.v1", "worker.event.v1", "group.event.v1",
        ),
    ),
    Exchange(
        EVENTS,
        "Events, for everyone allowed.",
        "job.<visibility>.<owner>.<job>.<status> and its kin (docs/events.md)",
        (
            "job.event.v1", "task.event.v1", "log.event.v1",
            "delivery.event.v1", "submission.event.v1", "worker.event.v1", "group.event.v1",
        ),
        public=True,
    ),
    Exchange(NOTIFY, "Ended jobs and groups with their triggers.", "<job or group>",
             ("job.ended.v1", "group.ended.v1")),
    Exchange(DEAD, "What failed, with its reason.", "<queue or service>", ()),
)  # fmt: skip


@dataclass(frozen=True)
class Queue:
    """A durable queue and how it behaves.

    Attributes:
        bindings: (exchange, pattern) pairs.
        prefetch: what its consumer asks for.
        max_bytes: past it, publishers are refused (`overflow` reject-publish) or the oldest dropped (drop-head).
        ttl: milliseconds a message stays; only for messages that are repeated or asked again anyway.
        single_active: one consumer at a time, others stand by.
        dead_letter: what is rejected or delivered too often goes to `leveret.dead` under the queue's name.
    """

    name: str
    service: str
    bindings: tuple[tuple[str, str], ...]
    type: Literal["quorum", "classic", "stream"] = "quorum"
    prefetch: int = 50
    max_bytes: int = 256 * MIB
    overflow: Literal["reject-publish", "drop-head"] = "reject-publish"
    ttl: int | None = None
    single_active: bool = False
    dead_letter: bool = True
    extra: tuple[tuple[str, Any], ...] = field(default=())

    def arguments(self) -> dict[str, Any]:
        """Give the arguments of `queue.declare`."""
        given: dict[str, Any] = {"x-queue-type": self.type}
        if self.type != "stream":
            given |= {"x-max-length-bytes": self.max_bytes, "x-overflow": self.overflow}
        if self.type == "quorum":
            given["x-delivery-limit"] = DELIVERY_LIMIT
        if self.type != "stream" and self.dead_letter:
            given |= {"x-dead-letter-exchange": DEAD, "x-dead-letter-routing-key": self.name}
            if self.type == "quorum" and self.overflow == "reject-publish":
                given["x-dead-letter-strategy"] = "at-least-once"
        if self.ttl is not None:
            given["x-message-ttl"] = self.ttl
        if self.single_active:
            given["x-single-active-consumer"] = True
        return given | dict(self.extra)


DELIVERY_LIMIT = 50

#: Where an answer may go, by the head of the queue's name: to RabbitMQ's direct reply-to, as a receiver sees it, or to
#: a queue that the broker named. Never to a queue that somebody else relies on.
REPLY_QUEUES = ("amq.rabbitmq.reply-to.", "amq.gen-")

#: Words of commands that the dispatcher takes. Owners have the first, operators the others as well.
OWNER_WORDS = ("cancel", "show", "list", "retry", "priority", "explain", "workers", "group", "secrets")
DISPATCHER_WORDS = (*OWNER_WORDS, "dead", "worker")
#: Words that logsink takes.
LOGSINK_WORDS = ("history", "links", "replay")

INTAKE_SUBMISSIONS = "leveret.intake.submissions"
DISPATCHER_JOBS = "leveret.dispatcher.jobs"
DISPATCHER_WORKERS = "leveret.dispatcher.workers"
DISPATCHER_STATUS = "leveret.dispatcher.status"
DISPATCHER_COMMANDS = "leveret.dispatcher.commands"
DISPATCHER_DEAD = "leveret.dispatcher.dead"
LOGSINK_RECORD = "leveret.logsink.record"
LOGSINK_HISTORY = "leveret.logsink.history"
LOGSINK_REPLAY = "leveret.logsink.replay"
NOTIFIER_JOBS = "leveret.notifier.jobs"
REPLAY = "leveret.replay"


def logsink_logs(partition: int) -> str:
    """Give the name of a partition's queue of log chunks."""
    return f"leveret.logsink.logs.{partition:02}"


def logsink_artifacts(partition: int) -> str:
    """Give the name of a partition's queue of artifact chunks."""
    return f"leveret.logsink.artifacts.{partition:02}"


def _partitioned() -> tuple[Queue, ...]:
    logs = tuple(
        Queue(logsink_logs(n), "logsink", ((LOGS, f"{n:02}.#"),), prefetch=32, max_bytes=64 * MIB, single_active=True)
        for n in range(PARTITIONS)
    )
    artifacts = tuple(
        Queue(
            logsink_artifacts(n), "logsink", ((ARTIFACTS, f"{n:02}.#"),),
            prefetch=32, max_bytes=64 * MIB, single_active=True,
        )
        for n in range(PARTITIONS)
    )  # fmt: skip
    return logs + artifacts


QUEUES: tuple[Queue, ...] = (
    # Two words and no more: who may read events could else bind them to leveret.submit, and flood intake with them.
    Queue(INTAKE_SUBMISSIONS, "intake", ((SUBMIT, "*.*"),)),
    Queue(DISPATCHER_JOBS, "dispatcher", ((JOBS, "#"),), prefetch=100),
    # Beats come again every 10 s, and a claim is repeated in the next beat: old ones are worth nothing.
    Queue(
        DISPATCHER_WORKERS, "dispatcher", ((WORKERS, "#"),),
        type="classic", prefetch=200, overflow="drop-head", ttl=30_000, dead_letter=False,
    ),
    Queue(DISPATCHER_STATUS, "dispatcher", ((STATUS, "#"),), prefetch=200),
    # Whoever gave a command waits for the answer, and gives it again.
    Queue(
        DISPATCHER_COMMANDS, "dispatcher",
        tuple((COMMANDS, f"{word}.#") for word in DISPATCHER_WORDS),
        type="classic", ttl=60_000, max_bytes=16 * MIB,
    ),
    Queue(DISPATCHER_DEAD, "dispatcher", ((DEAD, "#"),), prefetch=20, overflow="drop-head", dead_letter=False),
    # `queued` says nothing of logs
    Queue(
        LOGSINK_RECORD, "logsink",
        tuple((RECORD, f"job.*.*.*.{status}") for status in JobStatus if status is not JobStatus.QUEUED), prefetch=200,
    ),
    Queue(
        LOGSINK_HISTORY, "logsink", ((COMMANDS, "history.#"), (COMMANDS, "links.#")),
        type="classic", ttl=60_000, max_bytes=16 * MIB,
    ),
    Queue(LOGSINK_REPLAY, "logsink", ((COMMANDS, "replay.#"),), type="classic", ttl=60_000, max_bytes=16 * MIB),
    *_partitioned(),
    Queue(NOTIFIER_JOBS, "notifier", ((NOTIFY, "#"),)),
    Queue(
        REPLAY, "replay", ((RECORD, "#"),), type="stream",
        extra=(("x-max-age", "30D"), ("x-max-length-bytes", 4096 * MIB), ("x-stream-max-segment-size-bytes", 64 * MIB)),
    ),
)  # fmt: skip


_BY_NAME = {entry.name: entry for entry in QUEUES}


def queue(name: str) -> Queue:
    """Find a queue in the table. Raises KeyError."""
    return _BY_NAME[name]
