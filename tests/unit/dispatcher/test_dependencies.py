"""Dependencies: who is released, who fails, and what is said of it; then a model that recounts everything."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from leveret_dispatcher.dependencies import Dependencies, Followed, Outlook, failure, outlook
from leveret_proto.messages import JobStatus

ALICE, BOB = "~alice", "~bob"


def test_a_job_is_released_by_the_last_that_it_needs() -> None:
    index = Dependencies()
    index.add(3, ALICE, [1, 2, 2])
    assert index.needs(3) == (1, 2)
    assert index.ended(1, ALICE, succeeded=True) == Followed()
    assert index.needs(3) == (2,) and 3 in index
    assert index.ended(2, ALICE, succeeded=True) == Followed(released=(3,))
    assert len(index) == 0 and index.needs(3) == ()


def test_one_that_fails_fails_all_that_need_it_whatever_else_they_need() -> None:
    index = Dependencies()
    index.add(3, ALICE, [1, 2])
    index.add(4, ALICE, [1])
    index.add(5, ALICE, [3])
    assert index.ended(1, ALICE, succeeded=False) == Followed(failed=(3, 4))
    assert index.ended(2, ALICE, succeeded=True) == Followed()  # nobody waits for it any more
    assert index.needs(5) == (3,)
    assert index.ended(3, ALICE, succeeded=False) == Followed(failed=(5,))


def test_a_job_that_goes_leaves_nothing_behind() -> None:
    index = Dependencies()
    index.add(2, ALICE, [1])
    index.add(2, ALICE, [7])  # again: nothing changes
    index.remove(2)
    index.remove(2)
    assert index.ended(1, ALICE, succeeded=True) == Followed()
    assert vars(index) == vars(Dependencies())


def test_another_owners_job_is_not_there() -> None:
    index = Dependencies()
    index.add(2, ALICE, [1])
    assert index.ended(1, BOB, succeeded=True) == Followed()
    assert index.ended(1, BOB, succeeded=False) == Followed()
    assert index.needs(2) == (1,)


def test_the_outlook_says_what_is_waited_for_or_why_in_vain() -> None:
    assert outlook({}) == Outlook()
    assert outlook({1: JobStatus.SUCCESS}) == Outlook() and Outlook().detail is None
    waits = outlook({1: JobStatus.SUCCESS, 2: JobStatus.RUNNING, 3: None})
    assert waits.waits_for == (2, 3) and waits.detail == "waits for jobs 2, 3"
    assert outlook({2: None}).detail == "waits for job 2"
    assert (outlook(dict.fromkeys(range(1, 13))).detail or "").endswith("9, 10 and 2 more")
    for status in (JobStatus.FAILED, JobStatus.TIMEOUT, JobStatus.CANCELLED):
        assert outlook({1: None, 2: status}).failed == failure(2, status)
    assert failure(2, JobStatus.FAILED) == "job 2, which it depends on, ended failed"


class DependenciesMachine(RuleBasedStateMachine):
    """Jobs come with needs, end and go; the model keeps every need and looks at all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.index = Dependencies()
        self.needs: dict[int, set[int]] = {}
        self.over: set[int] = set()
        self.last = 0

    @rule(data=st.data())
    def job_comes(self, data: st.DataObject) -> None:
        self.last += 1
        known = [job for job in range(1, self.last + 3) if job != self.last and job not in self.over] or [99]
        needs = data.draw(st.sets(st.sampled_from(known), min_size=1, max_size=3))
        self.needs[self.last] = set(needs)
        self.index.add(self.last, ALICE, needs)

    @precondition(lambda self: self.needs)
    @rule(data=st.data())
    def job_is_cancelled(self, data: st.DataObject) -> None:
        self.job_ends(data.draw(st.sampled_from(sorted(self.needs))), False)

    @rule(job=st.integers(1, 12), succeeded=st.booleans())
    def job_ends(self, job: int, succeeded: bool) -> None:
        if job in self.over or (succeeded and job in self.needs):
            return  # ended already, or it can't have run yet
        self.over.add(job)
        self.needs.pop(job, None)
        followed = self.index.ended(job, ALICE, succeeded=succeeded)
        concerned = [other for other, needs in self.needs.items() if job in needs]
        for other in concerned:
            self.needs[other].discard(job)
        gone = [other for other in concerned if not succeeded or not self.needs[other]]
        for other in gone:
            del self.needs[other]
        assert sorted(followed.released if succeeded else followed.failed) == sorted(gone)
        assert not (followed.failed if succeeded else followed.released)

    @invariant()
    def everyone_waits_for_what_it_needs(self) -> None:
        assert len(self.index) == len(self.needs)
        assert all(self.index.needs(job) == tuple(sorted(needs)) for job, needs in self.needs.items())


TestDependenciesMachine = DependenciesMachine.TestCase
TestDependenciesMachine.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
