"""The public names of job and task states (those of builds.sr.ht), and the reasons of an end or a wait."""

from enum import StrEnum

#: The log of everything before the first task. No task can have this name.
SETUP_LOG = "@setup"


class JobStatus(StrEnum):
    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in ENDED


ENDED = frozenset({JobStatus.SUCCESS, JobStatus.FAILED, JobStatus.TIMEOUT, JobStatus.CANCELLED})


class TaskState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"


class AttemptState(StrEnum):
    """How far an attempt is, as its worker tells it."""

    GRANTED = "granted"
    RUNNING = "running"
    ENDED = "ended"


class Reason(StrEnum):
    """Why a job waits or ended: for programs. The `detail` beside it is for people."""

    # waiting
    SUBMITTED = "submitted"
    NO_WORKER = "no-worker"
    BUSY = "busy"
    LIMIT = "limit"
    DEPENDENCY = "dependency"  # also an end: a job it depends on did not succeed
    LOST = "lost"  # also an end: the third started attempt was lost
    HANDED_BACK = "handed-back"
    # on the way
    GRANTED = "granted"
    STARTED = "started"
    # ends
    COMPLETED = "completed"
    TASK_FAILED = "task-failed"
    SETUP_FAILED = "setup-failed"
    ARTIFACT_FAILED = "artifact-failed"
    BOOT_FAILED = "boot-failed"  # no machine came up
    MACHINE_ENDED = "machine-ended"  # powered off, panicked, or its emulator died
    AGENT_GONE = "agent-gone"  # the machine may run, what spoke for it does not
    GUEST_LOST = "guest-lost"  # it fell silent
    PROTOCOL_VIOLATION = "protocol-violation"  # the guest sent what it must not
    WORKER_FAULT = "worker-fault"
    TIME_LIMIT = "time-limit"  # the job's
    TASK_TIME_LIMIT = "task-time-limit"
    QUEUE_DEADLINE = "queue-deadline"  # it waited longer than it may
    SECRET_MISSING = "secret-missing"
    CANCELLED = "cancelled"
