"""The rules of a job's course, one by one; then a machine that drives them against what must always hold."""

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from leveret_dispatcher.lifecycle import (
    MOST_LOSSES,
    AttemptRecord,
    CancelAsked,
    Course,
    DeadlinePassed,
    DependencyFailed,
    Fate,
    Granted,
    Input,
    JobMoved,
    Lost,
    Overdue,
    Returned,
    Snapshot,
    Step,
    TaskMoved,
    Verdict,
    Waits,
    accept,
    judge_grant,
    judge_status,
    step,
)
from leveret_proto.messages import AttemptState, AttemptStatus, JobStatus, Reason, TaskResult, TaskState

NAMES = ("build", "check")
GRANT = "00000000-0000-4000-8000-000000000001"
RUNNING = Snapshot(AttemptState.RUNNING)
SUCCESS = Snapshot(
    AttemptState.ENDED,
    tuple(TaskResult(name=name, state=TaskState.SUCCESS, exit_status=0) for name in NAMES),
    JobStatus.SUCCESS,
)


def course_after(*inputs: Input) -> Course:
    return last_step(*inputs).course


def last_step(*inputs: Input) -> Step:
    made = accept(NAMES, cancelled=False)
    for happened in inputs:
        made = step(made.course, happened)
    return made


def told(made: Step) -> list[str]:
    return [
        one.course.status.value if isinstance(one, JobMoved) else f"{one.task.name}:{one.task.state.value}"
        for one in made.told
    ]


def test_a_job_begins_pending() -> None:
    made = accept(NAMES, cancelled=False)
    assert (made.course.status, made.course.reason, made.course.attempt) == (JobStatus.PENDING, Reason.SUBMITTED, 0)
    assert told(made) == ["pending"]


def test_a_job_cancelled_before_it_came_begins_and_ends() -> None:
    made = accept(NAMES, cancelled=True)
    assert told(made) == ["pending", "cancelled"]
    assert made.course.status is JobStatus.CANCELLED


def test_a_job_that_depends_on_others_begins_by_saying_so() -> None:
    made = accept(NAMES, waits_for="waits for job 1")
    assert (made.course.status, made.course.reason, made.course.detail) == (
        JobStatus.PENDING, Reason.DEPENDENCY, "waits for job 1",
    )  # fmt: skip
    ended = step(made.course, DependencyFailed("job 1 ended failed"))
    assert told(ended) == ["cancelled"] and ended.fate is None
    assert (ended.course.reason, ended.course.detail) == (Reason.DEPENDENCY, "job 1 ended failed")
    assert accept(NAMES, waits_for="waits for job 1", cancelled=True).course.reason is Reason.CANCELLED


def test_a_job_whose_dependency_had_failed_begins_and_ends() -> None:
    made = accept(NAMES, failed="job 1 ended failed")
    assert told(made) == ["pending", "cancelled"] and made.course.reason is Reason.DEPENDENCY
    assert accept(NAMES, failed="job 1 ended failed", cancelled=True).course.reason is Reason.CANCELLED


def test_only_a_job_that_was_never_granted_waits_too_long() -> None:
    made = last_step(DeadlinePassed("late"))
    assert told(made) == ["timeout"] and made.course.reason is Reason.QUEUE_DEADLINE
    for happened in (Lost("gone"), Returned("unbound")):
        again = last_step(Granted("w"), happened)
        assert step(again.course, DeadlinePassed("late")) == Step(again.course)
    assert last_step(Granted("w"), DeadlinePassed("late")).told == ()


def test_an_end_that_overtook_the_start_tells_of_both() -> None:
    made = last_step(Granted("w"), SUCCESS)
    assert told(made) == ["running", "build:success", "check:success", "success"]
    assert (made.course.reason, made.fate) == (Reason.COMPLETED, Fate.ENDED)


def test_tasks_only_move_forward_and_only_known_ones_move() -> None:
    odd = (
        TaskResult(name="build", state=TaskState.SUCCESS, log_url="http://evil.example"),
        TaskResult(name="mine", state=TaskState.RUNNING),
    )
    made = last_step(Granted("w"), Snapshot(AttemptState.RUNNING, odd))
    assert told(made) == ["running", "build:success"]
    assert made.course.tasks[0].log_url is None
    back = step(made.course, Snapshot(AttemptState.RUNNING, (TaskResult(name="build", state=TaskState.RUNNING),)))
    assert back.told == () and back.course == made.course


def test_tasks_left_behind_by_an_end_are_ended_too() -> None:
    tasks = (TaskResult(name="build", state=TaskState.RUNNING),)
    made = last_step(Granted("w"), Snapshot(AttemptState.ENDED, tasks, JobStatus.TIMEOUT))
    assert told(made) == ["running", "build:running", "build:failed", "check:skipped", "timeout"]


def test_a_started_attempt_lost_three_times_fails() -> None:
    course = accept(NAMES, cancelled=False).course
    for loss in range(1, MOST_LOSSES + 1):
        for happened in (Granted("w"), RUNNING, Lost("gone")):
            made = step(course, happened)
            course = made.course
        assert course.losses == loss
        assert made.fate is Fate.LOST
        assert isinstance(made.told[-1], JobMoved) and made.told[-1].course.attempt == loss
    assert (course.status, course.reason) == (JobStatus.FAILED, Reason.LOST)


def test_attempts_that_never_started_or_came_back_do_not_count() -> None:
    course = accept(NAMES, cancelled=False).course
    for happened in (Lost("gone"), Returned("unbound"), Snapshot(AttemptState.ENDED)) * MOST_LOSSES:
        course = step(step(course, Granted("w")).course, happened).course
        assert (course.status, course.losses) == (JobStatus.PENDING, 0)
    assert course.attempt == 3 * MOST_LOSSES


def test_a_handed_back_attempt_that_ran_does_not_count() -> None:
    made = last_step(Granted("w"), RUNNING, Snapshot(AttemptState.ENDED))
    assert (made.course.reason, made.course.losses, made.fate) == (Reason.HANDED_BACK, 0, Fate.HANDED_BACK)


def test_a_cancel_ends_a_waiting_job_and_marks_a_running_one() -> None:
    assert told(last_step(CancelAsked())) == ["cancelled"]
    marked = last_step(Granted("w"), RUNNING, CancelAsked())
    assert (marked.course.status, marked.course.cancelling, marked.told) == (JobStatus.RUNNING, True, ())
    for happened in (Lost("gone"), Snapshot(AttemptState.ENDED), Snapshot(AttemptState.ENDED, (), JobStatus.CANCELLED)):
        assert step(marked.course, happened).course.status is JobStatus.CANCELLED
    assert step(marked.course, SUCCESS).course.status is JobStatus.SUCCESS


def test_an_attempt_cancelled_before_its_guest_ran_never_was_running() -> None:
    made = last_step(Granted("w"), CancelAsked(), Snapshot(AttemptState.ENDED, (), JobStatus.CANCELLED))
    assert told(made) == ["build:skipped", "check:skipped", "cancelled"]


def test_an_overdue_attempt_times_out() -> None:
    made = last_step(Granted("w"), RUNNING, Overdue())
    assert (made.course.status, made.course.reason, made.fate) == (JobStatus.TIMEOUT, Reason.TIME_LIMIT, Fate.OVERDUE)


def test_only_a_change_of_the_reason_for_waiting_is_told() -> None:
    busy = last_step(Waits(Reason.BUSY))
    assert told(busy) == ["pending"]
    assert step(busy.course, Waits(Reason.BUSY, "other words")).told == ()
    assert told(step(busy.course, Waits(Reason.NO_WORKER, "kvm"))) == ["pending"]
    assert last_step(Granted("w"), Waits(Reason.BUSY)).told == ()


def status(**changes: object) -> AttemptStatus:
    given: dict[str, object] = {
        "grant": GRANT, "job": 1, "attempt": 1, "worker": "w", "session": GRANT, "seq": 2, "state": "running",
    }  # fmt: skip
    return AttemptStatus.model_validate(given | changes)


def record(fate: Fate | None = None, worker: str = "w", attempt: int = 1) -> AttemptRecord:
    return AttemptRecord(GRANT, 1, attempt, worker, 1, fate)


def test_the_fence() -> None:
    assert judge_status(record(), "w", status()) is Verdict.APPLY
    assert judge_status(record(), "w", status(seq=1)) is Verdict.STALE
    assert judge_status(None, "w", status()) is Verdict.ABANDON
    assert judge_status(record(worker="other"), "w", status()) is Verdict.ABANDON
    assert judge_status(record(attempt=2), "w", status()) is Verdict.ABANDON
    for fate in (Fate.LOST, Fate.RETURNED, Fate.OVERDUE):
        assert judge_status(record(fate), "w", status()) is Verdict.ABANDON
        assert judge_grant(record(fate), "w") is Verdict.ABANDON
    for fate in (Fate.ENDED, Fate.HANDED_BACK):
        assert judge_status(record(fate), "w", status(state="ended", result="success")) is Verdict.SETTLE
        assert judge_status(record(fate), "w", status()) is Verdict.STALE
        assert judge_grant(record(fate), "w") is Verdict.SETTLE
    assert judge_grant(record(), "w") is Verdict.APPLY


tasks = st.lists(
    st.builds(TaskResult, name=st.sampled_from([*NAMES, "unknown"]), state=st.sampled_from(TaskState)), max_size=3
).map(tuple)
ENDS = [JobStatus.SUCCESS, JobStatus.FAILED, JobStatus.TIMEOUT, JobStatus.CANCELLED]
inputs = st.one_of(
    st.just(Granted("w")),
    st.builds(Snapshot, st.sampled_from(AttemptState), tasks, st.none() | st.sampled_from(ENDS)),
    st.just(Lost("gone")),
    st.just(Returned("unbound")),
    st.just(CancelAsked()),
    st.just(Overdue()),
    st.builds(Waits, st.sampled_from([Reason.BUSY, Reason.NO_WORKER])),
    st.just(DependencyFailed("job 1, which it depends on, ended failed")),
    st.just(DeadlinePassed("late")),
)


def test_a_job_cancelled_after_a_lost_attempt_says_nothing_more_of_that_attempts_tasks() -> None:
    course = accept(NAMES, cancelled=False).course
    course = step(course, Granted("w")).course
    done = (TaskResult(name=NAMES[0], state=TaskState.SUCCESS),)
    course = step(course, Snapshot(AttemptState.RUNNING, done)).course
    course = step(course, Lost("gone")).course
    assert course.status is JobStatus.PENDING
    ended = step(course, CancelAsked())
    assert [type(one) for one in ended.told] == [JobMoved]
    assert all(task.state is TaskState.SKIPPED for task in ended.course.tasks)


class LifecycleMachine(RuleBasedStateMachine):
    """Anything may happen in any order; a model that counts for itself says what must hold all the same."""

    course: Course

    @initialize(cancelled=st.booleans())
    def begin(self, cancelled: bool) -> None:
        self.told: list[JobMoved | TaskMoved] = []
        self.grants = self.losses = 0
        self.under_way = False
        self.terminal = 0
        self._take(accept(NAMES, cancelled=cancelled))

    @rule(happened=inputs)
    def happens(self, happened: Input) -> None:
        before = self.course
        made = step(before, happened)
        if made.course.attempt > before.attempt:
            assert isinstance(happened, Granted) and not self.under_way
            self.grants += 1
            self.under_way = True
        if made.fate is not None:
            assert self.under_way
            self.under_way = False
            self.losses += made.fate is Fate.LOST and before.status is JobStatus.RUNNING
        self._take(made)
        if before.status.ended:
            assert made == Step(before)

    @precondition(lambda self: self.course.status is JobStatus.PENDING)
    @rule()
    def granted(self) -> None:
        self.happens(Granted("w"))
        assert self.course.status is JobStatus.QUEUED

    def _take(self, made: Step) -> None:
        self.course = made.course
        self.told += made.told
        self.terminal += sum(isinstance(one, JobMoved) and one.course.status.ended for one in made.told)
        last = [one for one in made.told if isinstance(one, JobMoved)]
        if last:
            # an event tells of tasks at the end alone; before, their own events follow it
            told = last[-1].course
            assert (told if made.course.status.ended else replace(told, tasks=made.course.tasks)) == made.course
            assert isinstance(made.told[-1], JobMoved) or not made.course.status.ended

    @invariant()
    def one_end_and_it_is_the_last_word(self) -> None:
        assert self.terminal == (1 if self.course.status.ended else 0)
        if self.terminal:
            last = self.told[-1]
            assert isinstance(last, JobMoved) and last.course.status.ended

    @invariant()
    def attempts_and_losses_are_counted(self) -> None:
        assert (self.course.attempt, self.course.losses) == (self.grants, self.losses)
        assert self.under_way == (self.course.status in (JobStatus.QUEUED, JobStatus.RUNNING))
        assert self.course.losses < MOST_LOSSES or self.course.status.ended

    @invariant()
    def no_task_moves_after_the_end_or_backwards_in_an_attempt(self) -> None:
        seen: dict[tuple[int, str], list[TaskState]] = {}
        for one in self.told:
            if isinstance(one, TaskMoved):
                seen.setdefault((one.attempt, one.task.name), []).append(one.task.state)
        for states in seen.values():
            assert states in ([TaskState.RUNNING], [states[-1]], [TaskState.RUNNING, states[-1]])
        if self.course.status.ended:
            assert all(task.state not in (TaskState.PENDING, TaskState.RUNNING) for task in self.course.tasks)


TestLifecycleMachine = LifecycleMachine.TestCase
TestLifecycleMachine.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
