"""What the ends of attempts say of a worker's host, and when it is given no more jobs."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_dispatcher.worker_record import BLANK, Drained, Sign, WorkerRecord, after, sign_of, words
from leveret_proto.capability import Requirement
from leveret_proto.messages import AttemptState, AttemptStatus, JobStatus, Reason

AT = datetime(2026, 3, 14, tzinfo=UTC)
USUAL = Requirement(arch="x86_64", image="debian/trixie")
LITTLE = Requirement(arch="x86_64", image="debian/trixie", memory_mib=64)
ORDER = Drained("~ops", 60, AT)


def ended(result: JobStatus | None, reason: Reason | None, detail: str | None = None) -> AttemptStatus:
    return AttemptStatus(
        grant=str(uuid4()), job=1, attempt=1, worker="w", session=str(uuid4()), seq=2,
        state=AttemptState.ENDED, result=result, reason=reason, detail=detail,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("result", "reason", "sign"),
    [
        (JobStatus.SUCCESS, Reason.COMPLETED, Sign.FIT),
        (JobStatus.FAILED, Reason.TASK_FAILED, Sign.FIT),
        (JobStatus.FAILED, Reason.BOOT_FAILED, Sign.FAULT),
        (JobStatus.FAILED, Reason.WORKER_FAULT, Sign.FAULT),
        (None, Reason.WORKER_FAULT, Sign.FAULT),
        (None, Reason.HANDED_BACK, Sign.NONE),
        (None, None, Sign.NONE),
        (JobStatus.CANCELLED, Reason.CANCELLED, Sign.NONE),
        (JobStatus.TIMEOUT, Reason.TIME_LIMIT, Sign.NONE),
        # what a job can do to its own guest
        (JobStatus.FAILED, Reason.MACHINE_ENDED, Sign.NONE),
        (JobStatus.FAILED, Reason.AGENT_GONE, Sign.NONE),
        (JobStatus.FAILED, Reason.GUEST_LOST, Sign.NONE),
        (JobStatus.FAILED, Reason.PROTOCOL_VIOLATION, Sign.NONE),
    ],
)
def test_an_end_is_a_sign_of_the_host_only_where_no_job_can_bring_it_about(
    result: JobStatus | None, reason: Reason | None, sign: Sign
) -> None:
    assert sign_of(ended(result, reason), USUAL) is sign


def test_a_boot_that_failed_with_memory_of_the_manifests_choice_is_no_sign() -> None:
    assert sign_of(ended(JobStatus.FAILED, Reason.BOOT_FAILED), LITTLE) is Sign.NONE


def test_an_attempt_under_way_is_no_sign() -> None:
    running = ended(None, None).model_copy(update={"state": AttemptState.RUNNING})
    assert sign_of(running, USUAL) is Sign.NONE


def test_what_a_guest_said_at_its_end_is_not_told_to_others() -> None:
    assert words(ended(JobStatus.FAILED, Reason.BOOT_FAILED, "console: secret")) == "boot-failed"
    assert words(ended(None, Reason.WORKER_FAULT, "the spool is full")) == "the spool is full"


@given(st.lists(st.sampled_from(list(Sign)), max_size=40), st.integers(1, 4), st.booleans())
def test_quarantine_begins_with_so_many_faults_in_a_row_and_ends_with_one_that_ends_well(
    signs: list[Sign], most: int, drained: bool
) -> None:
    record = WorkerRecord(drained=ORDER if drained else None)
    in_a_row = 0
    for sign in signs:
        record = after(record, sign, "boot-failed", AT, most)
        in_a_row = 0 if sign is Sign.FIT else in_a_row + (sign is Sign.FAULT)
        assert record.faults == in_a_row
        assert (record.quarantined is not None) is (in_a_row >= most)
        assert (record.drained is not None) is drained
        assert (record.halt is None) is (in_a_row < most and not drained)


def test_an_operators_order_is_named_before_a_quarantine() -> None:
    record = WorkerRecord(ORDER, 5, "boot-failed", AT)
    assert record.halt is not None and record.halt.why == "drained by ~ops"
    quarantined = WorkerRecord(None, 5, "boot-failed", AT).halt
    assert quarantined is not None
    assert quarantined.why == "quarantined after 5 faults in a row, the last: boot-failed"
    assert BLANK.halt is None
