"""The system tests' observer sees what it is there to see."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from leveret_proto.messages import JobEvent, JobFacts, JobStatus, Reason
from tests.support.journal import Journal

FACTS = JobFacts(job=1, owner="~ada", project="p", submission="s", link="abcdefghijklmnopqrstuvwx")
PENDING, QUEUED, RUNNING, SUCCESS = JobStatus.PENDING, JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.SUCCESS


def journal(*told: tuple[int, JobStatus]) -> Journal:
    made = Journal()
    for seq, status in told:
        at = datetime(2026, 1, 1, tzinfo=UTC)
        event = JobEvent(facts=FACTS, source="dispatcher", seq=seq, at=at, status=status, reason=Reason.COMPLETED)
        made.note(event, event.model_dump_json().encode())
    return made


def test_a_repeat_and_any_order_are_no_fault() -> None:
    journal((1, PENDING), (3, RUNNING), (2, QUEUED), (2, QUEUED), (4, SUCCESS), (4, SUCCESS)).check(1)


@pytest.mark.parametrize(
    "told",
    [
        pytest.param([(1, PENDING), (2, QUEUED), (4, SUCCESS)], id="gap"),
        pytest.param([(2, QUEUED), (3, SUCCESS)], id="no-beginning"),
        pytest.param([(1, PENDING), (2, QUEUED), (2, RUNNING), (3, SUCCESS)], id="two-with-one-number"),
        pytest.param([(1, PENDING), (2, QUEUED), (3, SUCCESS), (4, SUCCESS)], id="two-ends"),
        pytest.param([(1, PENDING), (2, QUEUED), (3, SUCCESS), (4, RUNNING)], id="life-after-the-end"),
        pytest.param([(1, PENDING), (2, QUEUED)], id="no-end"),
        pytest.param([(1, PENDING), (2, RUNNING), (3, SUCCESS)], id="ran-without-a-grant"),
    ],
)
def test_every_fault_is_seen(told: Sequence[tuple[int, JobStatus]]) -> None:
    with pytest.raises(AssertionError):
        journal(*told).check(1)
