"""How an attempt ends, and what ends it early. Pure."""

from dataclasses import dataclass

from leveret_guestapi import AgentGone, GuestApiError, ProtocolViolation
from leveret_proto.messages import JobStatus, Reason


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended. `result` None: handed back, it does not count."""

    result: JobStatus | None
    reason: Reason
    detail: str | None = None


COMPLETED = Outcome(JobStatus.SUCCESS, Reason.COMPLETED)


class BuildFailed(Exception):
    """The build can't go on; `outcome` says why."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.detail)
        self.outcome = outcome


class MachineEnded(GuestApiError):
    """The guest's machine has ended by itself; the text says what it said last."""


def failed(reason: Reason, detail: str) -> BuildFailed:
    """The build fails for `reason`."""
    return BuildFailed(Outcome(JobStatus.FAILED, reason, detail))


def lost(error: GuestApiError, *, booted: bool) -> Outcome:
    """What a build came to whose guest is not to be reached any more, or never was."""
    match error:
        case _ if not booted:
            reason = Reason.BOOT_FAILED
        case MachineEnded():
            reason = Reason.MACHINE_ENDED
        case AgentGone():
            reason = Reason.AGENT_GONE
        case ProtocolViolation():
            reason = Reason.PROTOCOL_VIOLATION
        case _:
            reason = Reason.GUEST_LOST
    return Outcome(JobStatus.FAILED, reason, str(error))
