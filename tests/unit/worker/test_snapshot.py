"""Status snapshots: cumulative, numbered, truthful about what never ran."""

from hypothesis import given
from hypothesis import strategies as st

from leveret_proto.capability import Capabilities
from leveret_proto.messages import AttemptState, JobStatus, Reason, TaskState, WorkerBeat
from leveret_worker.snapshot import Snapshot
from tests.support.dispatcher_played import make_grant

BEAT = WorkerBeat(
    worker="w1",
    session="0190c5a0-0000-7000-8000-000000000001",
    spool="0190c5a0-0000-7000-8000-000000000002",
    beat=1,
    capabilities=Capabilities(),
    slots=1,
    tokens=("0190c5a0-0000-7000-8000-000000000003",),
)
GRANT = make_grant(BEAT, "image: x\ntasks:\n- one: a\n- two: b\n- three: c\n")


def test_it_begins_with_every_task_pending() -> None:
    message = Snapshot(GRANT).message()
    assert message.state is AttemptState.GRANTED
    assert [task.state for task in message.tasks] == [TaskState.PENDING] * 3


def test_at_the_end_what_never_ran_is_skipped_and_what_ran_has_failed() -> None:
    snapshot = Snapshot(GRANT)
    snapshot.started(1.0)
    snapshot.task(0, TaskState.SUCCESS, 0, 1.0)
    snapshot.task(1, TaskState.RUNNING, None, None)
    snapshot.ended(JobStatus.TIMEOUT, Reason.TIME_LIMIT, "over")
    message = snapshot.message()
    assert [task.state for task in message.tasks] == [TaskState.SUCCESS, TaskState.FAILED, TaskState.SKIPPED]
    assert (message.state, message.result, message.reason) == ("ended", "timeout", "time-limit")


def test_a_detail_of_any_length_fits_the_message() -> None:
    snapshot = Snapshot(GRANT)
    snapshot.ended(JobStatus.FAILED, Reason.GUEST_LOST, "x" * 100_000)
    assert len(snapshot.message().detail or "") == 4096


@given(st.lists(st.sampled_from(["start", "task", "time", "end"]), max_size=20))
def test_every_change_has_a_higher_number(steps: list[str]) -> None:
    snapshot = Snapshot(GRANT)
    changes = {
        "start": lambda: snapshot.started(0.5),
        "task": lambda: snapshot.task(0, TaskState.RUNNING, None, None),
        "time": lambda: snapshot.timed(setup=1.0),
        "end": lambda: snapshot.ended(None, Reason.HANDED_BACK, None),
    }
    for step in steps:
        before = snapshot.message()
        changes[step]()
        after = snapshot.message()
        assert after.seq > before.seq
        assert snapshot.held().seq == after.seq
