"""Each way of losing a guest has a reason of its own."""

import pytest

from leveret_guestapi import AgentGone, GuestApiError, GuestGone, GuestTimeout, ProtocolViolation
from leveret_proto.messages import JobStatus, Reason
from leveret_worker.outcome import MachineEnded, lost


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MachineEnded("it panicked"), Reason.MACHINE_ENDED),
        (AgentGone("started anew"), Reason.AGENT_GONE),
        (ProtocolViolation("a lie"), Reason.PROTOCOL_VIOLATION),
        (GuestGone("nothing heard"), Reason.GUEST_LOST),
        (GuestTimeout("no answer"), Reason.GUEST_LOST),
        (GuestApiError("whatever"), Reason.GUEST_LOST),
    ],
)
def test_the_end_says_what_was_lost(error: GuestApiError, reason: Reason) -> None:
    outcome = lost(error, booted=True)
    assert (outcome.result, outcome.reason, outcome.detail) == (JobStatus.FAILED, reason, str(error))
    assert lost(error, booted=False).reason is Reason.BOOT_FAILED
