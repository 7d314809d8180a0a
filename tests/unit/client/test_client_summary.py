"""Where the demo's time went, from the job's terminal event."""

from datetime import UTC, datetime

from leveret_client.demonstration.summary import _rows
from leveret_proto.base import JobFacts
from leveret_proto.messages import JobEvent, JobStatus, Reason, TaskResult, TaskState, Timings


def test_each_step_has_a_row_and_the_boot_is_not_counted_twice() -> None:
    end = JobEvent(
        facts=JobFacts(job=7, owner="~a", project="p", submission="m", link="x" * 32),
        source="dispatcher", seq=9, at=datetime(2024, 1, 1, tzinfo=UTC),
        status=JobStatus.SUCCESS, reason=Reason.COMPLETED, attempt=1,
        tasks=(TaskResult(name="build", state=TaskState.SUCCESS, seconds=4),
               TaskResult(name="check", state=TaskState.SKIPPED)),
        timings=Timings(boot=3, setup=1, artifacts=0, total=8), queued_seconds=3.5,
    )  # fmt: skip
    assert [(name, seconds) for name, seconds, _ in _rows(end, 1.0, 6.0)] == [
        ("image and source", 1.0),
        ("broker, database, services", 6.0),
        ("queued", 0.5),
        ("boot", 3.0),
        ("setup", 1.0),
        ("task build", 4.0),
        ("artifacts", 0.0),
        ("the build, all told", 8.0),
    ]
