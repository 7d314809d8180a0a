"""Matching for one owner, against a model that looks at everything: no slot idle beside a job it serves."""

from datetime import UTC, datetime

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from leveret_dispatcher import matching
from leveret_dispatcher.matching import Matching, Session
from leveret_dispatcher.reasons import SETTLE
from leveret_proto.capability import Capabilities, ImageOffer, Requirement, serves
from leveret_proto.messages import Halt, Place, Reason

A = Requirement(arch="x86_64", image="a")
B = Requirement(arch="x86_64", image="b")
A_ROOMY = Requirement(arch="x86_64", image="a", memory_mib=2048, cpus=2)
A_BIG = Requirement(arch="x86_64", image="a", tags=("disk=large",))
REQUIREMENTS = (A, B, A_BIG, A_ROOMY)
ALICE, BOB = "~alice", "~bob"
HALT = Halt(
    kind="quarantined",
    why="quarantined after 5 faults in a row, the last: boot-failed",
    since=datetime(2026, 3, 14, tzinfo=UTC),
)


def offer(*images: str, tags: tuple[str, ...] = (), roomy: bool = False) -> Capabilities:
    return Capabilities(
        images=tuple(ImageOffer(arch="x86_64", name=name, digest="0") for name in images),
        tags=tags,
        memory_mib=4096 if roomy else 1024,
        cpus=4 if roomy else 1,
    )


def session(name: str, offered: Capabilities, *tokens: str) -> Session:
    made = Session(name, f"session-{name}", "spool", offered, 4)
    made.take_beat(tokens)
    return made


def pairs(index: Matching, most: int = 100) -> list[tuple[int, str]]:
    return [(match.job, match.session.worker) for match in index.match(most)]


def test_the_oldest_job_goes_first_whichever_came_first() -> None:
    index = Matching()
    for job, requirement in ((3, A), (1, B), (2, A)):
        index.add(job, ALICE, requirement, 0, Reason.SUBMITTED)
    index.seat(session("w", offer("a", "b"), "t1", "t2"))
    assert pairs(index) == [(1, "w"), (2, "w")]
    assert len(index) == 1


def test_a_second_idle_session_is_found_when_the_first_takes_another_job() -> None:
    index = Matching()
    index.seat(session("both", offer("a", "b"), "t1"))
    index.seat(session("only-b", offer("b"), "t2"))
    index.add(1, ALICE, A, 0, Reason.SUBMITTED)
    index.add(2, ALICE, B, 0, Reason.SUBMITTED)
    assert sorted(pairs(index)) == [(1, "both"), (2, "only-b")]


def test_work_spreads_over_idle_sessions() -> None:
    index = Matching()
    for name in ("w1", "w2"):
        index.seat(session(name, offer("a"), f"{name}-1", f"{name}-2"))
    for job in range(4):
        index.add(job, ALICE, A, 0, Reason.SUBMITTED)
    assert [worker for _, worker in pairs(index)] == ["w1", "w2", "w1", "w2"]


def test_a_beat_that_was_on_its_way_does_not_free_a_spent_token() -> None:
    index = Matching()
    one = session("w", offer("a"), "t1")
    index.seat(one)
    index.add(1, ALICE, A, 0, Reason.SUBMITTED)
    assert pairs(index) == [(1, "w")]
    one.take_beat(["t1", "t2"])
    index.freed(one)
    index.add(2, ALICE, A, 0, Reason.SUBMITTED)
    index.add(3, ALICE, A, 0, Reason.SUBMITTED)
    assert pairs(index) == [(2, "w")]
    one.take_beat(["t3"])
    assert (dict(one.free), one.used) == ({"t3": None}, set())


def test_a_returned_job_goes_to_its_place_in_line() -> None:
    index = Matching()
    index.add(5, ALICE, A, 0, Reason.SUBMITTED)
    index.add(2, ALICE, A, 0, Reason.LOST)
    index.seat(session("w", offer("a"), "t"))
    assert pairs(index) == [(2, "w")]


def test_reasons_are_given_when_they_change_and_only_then() -> None:
    index = Matching()
    index.add(1, ALICE, A_BIG, 0, Reason.SUBMITTED)
    small = session("small", offer("a"))
    index.seat(small)
    why = "no worker offers a on x86_64 with disk=large; nearest is small, which lacks tags disk=large"
    assert index.untold(10, 0.0) == [(1, Reason.NO_WORKER, why)]
    assert index.untold(10, 0.0) == []
    big = session("big", offer("a", tags=("disk=large",)))
    index.seat(big)
    assert index.untold(10, 0.0) == [(1, Reason.BUSY, None)]
    index.seat(big)  # as after a changed offer that still serves the job
    assert index.untold(10, 0.0) == []
    index.unseat(big)
    assert [reason for _, reason, _ in index.untold(10, 0.0)] == [Reason.NO_WORKER]


def test_a_draining_session_serves_nothing() -> None:
    index = Matching()
    one = session("w", offer("a"), "t")
    one.draining = True
    index.seat(one)
    index.add(1, ALICE, A, 0, Reason.SUBMITTED)
    assert pairs(index) == []
    assert [reason for _, reason, _ in index.untold(10, 0.0)] == [Reason.NO_WORKER]


def test_a_halted_session_serves_nothing_and_is_named_as_the_reason() -> None:
    index = Matching()
    one, other = session("w", offer("a"), "t"), session("z", offer("b"), "t")
    index.seat(one)
    index.seat(other)
    index.add(1, ALICE, A, 0, Reason.SUBMITTED)
    one.halt = HALT
    index.seat(one)
    assert pairs(index) == []
    why = "no worker takes a on x86_64: w could, but is quarantined after 5 faults in a row, the last: boot-failed"
    assert index.untold(10, 0.0) == [(1, Reason.NO_WORKER, why)]
    one.halt = None
    index.seat(one)
    assert pairs(index) == [(1, "w")]


def test_a_withdrawn_capability_is_believed_again_when_seated_again() -> None:
    index = Matching()
    one = session("w", offer("a", "b"), "t1", "t2")
    index.seat(one)
    index.withdraw(one, A)
    index.add(1, ALICE, A, 0, Reason.SUBMITTED)
    index.add(2, ALICE, B, 0, Reason.SUBMITTED)
    assert pairs(index) == [(2, "w")]
    assert one.withdrawn
    index.seat(one)
    assert pairs(index) == [(1, "w")]
    assert not one.withdrawn


def test_the_highest_priority_goes_first_in_whichever_line_and_may_be_changed() -> None:
    index = Matching()
    for job, requirement, priority in ((1, A, 0), (2, B, 7), (3, A, 7), (4, B, -1)):
        index.add(job, ALICE, requirement, priority, Reason.SUBMITTED)
    index.prioritize(4, 100)
    index.prioritize(99, 1)
    index.seat(session("w", offer("a", "b"), "t1", "t2", "t3", "t4"))
    found = index.match(10)
    assert [(match.job, match.priority) for match in found] == [(4, 100), (2, 7), (3, 7), (1, 0)]


def test_a_place_is_within_the_owner_and_the_line() -> None:
    index = Matching(lambda owner: 3 if owner == ALICE else None)
    for job, owner, priority in ((1, ALICE, 0), (2, ALICE, 5), (3, ALICE, 0), (4, BOB, 9)):
        index.add(job, owner, A, priority, Reason.SUBMITTED)
    index.add(5, ALICE, B, 9, Reason.SUBMITTED)
    index.hold(ALICE)
    assert index.place(3) == Place(place=3, waiting=3, owners=2, running=1, limit=3)
    assert index.place(4) == Place(place=1, waiting=1, owners=2, running=0)
    index.remove(2)
    place = index.place(3)
    assert place is not None and place.place == 2
    assert index.place(2) is None


def test_an_owner_at_its_limit_is_passed_over_until_a_job_of_its_ends() -> None:
    index = Matching(lambda owner: {ALICE: 1, BOB: 0}.get(owner))
    one = session("w", offer("a"), "t1", "t2", "t3")
    index.seat(one)
    for job, owner in ((1, ALICE), (2, ALICE), (3, BOB), (4, "~carol")):
        index.add(job, owner, A, 0, Reason.SUBMITTED)
    assert [job for job, _ in pairs(index)] == [1, 4]
    assert index.untold(10, 0.0) == [
        (2, Reason.LIMIT, "at most 1 of ~alice's jobs may run at once"),
        (3, Reason.LIMIT, "at most 0 of ~bob's jobs may run at once"),
    ]
    index.release(ALICE)
    assert [job for job, _ in pairs(index)] == [2]
    index.release("~carol")
    with pytest.raises(ValueError, match="~carol has no job under way"):
        index.release("~carol")


def test_busy_and_limit_flap_only_when_the_change_has_stood() -> None:
    index = Matching(lambda owner: 1)
    one = session("w", offer("a"), "t1")
    index.seat(one)
    index.add(1, ALICE, A, 0, Reason.SUBMITTED)
    index.add(2, ALICE, A, 0, Reason.SUBMITTED)
    assert pairs(index) == [(1, "w")]
    assert [(job, reason) for job, reason, _ in index.untold(10, 100.0)] == [(2, Reason.LIMIT)]
    index.release(ALICE)
    assert index.untold(10, 101.0) == []
    index.hold(ALICE)  # as by a grant elsewhere: it flaps back
    assert index.untold(10, 107.0) == []
    index.release(ALICE)
    assert index.untold(10, 108.0) == []
    assert index.untold(10, 108.0 + SETTLE - 0.1) == []
    assert index.untold(10, 108.0 + SETTLE) == [(2, Reason.BUSY, None)]
    index.hold(ALICE)
    index.add(3, ALICE, A, 0, Reason.SUBMITTED)  # was told of neither: is told at once
    assert [(job, reason) for job, reason, _ in index.untold(10, 120.0)] == [(3, Reason.LIMIT)]
    index.unseat(one)  # whatever the limit, this is told at once
    assert {reason for _, reason, _ in index.untold(10, 120.1)} == {Reason.NO_WORKER}


def test_jobs_are_told_in_portions_and_none_twice() -> None:
    index = Matching()
    for job in range(25):
        index.add(job, ALICE if job % 2 else BOB, A, 0, Reason.SUBMITTED)
    told = [job for portion in iter(lambda: index.untold(10, 0.0), []) for job, _, _ in portion]
    assert sorted(told) == list(range(25))


def test_empty_lines_are_forgotten_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "KEPT_LINES", 10)
    index = Matching()
    one = session("w", offer("a", tags=tuple(str(n) for n in range(50))))
    index.seat(one)
    for number in range(50):
        index.add(number, ALICE, Requirement(arch="x86_64", image="a", tags=(str(number),)), 0, Reason.SUBMITTED)
        index.remove(number)
    assert len(one.lines) <= 10
    index.add(99, ALICE, A, 0, Reason.SUBMITTED)
    one.take_beat(["t"])
    index.freed(one)
    assert pairs(index) == [(99, "w")]


def test_jobs_that_ask_for_more_wait_for_a_worker_that_has_it_and_others_do_not() -> None:
    index = Matching()
    index.add(1, ALICE, A_ROOMY, 0, Reason.SUBMITTED)
    index.add(2, ALICE, A, 0, Reason.SUBMITTED)
    small = session("small", offer("a"), "t1", "t2")
    index.seat(small)
    assert pairs(index) == [(2, "small")]
    assert index.explain(A_ROOMY).endswith("with 2GiB of memory, 2 cpus; nearest is small, which lacks memory 2GiB")
    index.seat(session("roomy", offer("a", roomy=True), "t3"))
    assert pairs(index) == [(1, "roomy")]


class MatchingMachine(RuleBasedStateMachine):
    """Jobs, sessions and tokens come and go; after each match nothing that fits may be left over."""

    def __init__(self) -> None:
        super().__init__()
        self.index = Matching()
        self.jobs: dict[int, Requirement] = {}
        self.sessions: dict[str, Session] = {}
        self.given: set[int] = set()
        self.spent: set[str] = set()
        self.next = 0

    @rule(requirement=st.sampled_from(REQUIREMENTS))
    def job_comes(self, requirement: Requirement) -> None:
        self.next += 1
        self.jobs[self.next] = requirement
        self.index.add(self.next, ALICE, requirement, 0, Reason.SUBMITTED)

    @rule(data=st.data())
    def job_goes(self, data: st.DataObject) -> None:
        if self.jobs:
            job = data.draw(st.sampled_from(sorted(self.jobs)))
            del self.jobs[job]
            self.index.remove(job)

    @rule(
        name=st.sampled_from("xyz"),
        images=st.sets(st.sampled_from("ab")),
        tagged=st.booleans(),
        roomy=st.booleans(),
        draining=st.booleans(),
        halted=st.booleans(),
    )
    def session_is_seated(
        self, name: str, images: set[str], tagged: bool, roomy: bool, draining: bool, halted: bool
    ) -> None:
        one = self.sessions.setdefault(name, session(name, Capabilities()))
        one.offer = offer(*sorted(images), tags=("disk=large",) if tagged else (), roomy=roomy)
        one.draining = draining
        one.halt = HALT if halted else None
        self.index.seat(one)

    @rule(name=st.sampled_from("xyz"))
    def session_goes(self, name: str) -> None:
        if name in self.sessions:
            self.index.unseat(self.sessions.pop(name))

    @rule(name=st.sampled_from("xyz"), count=st.integers(1, 3))
    def tokens_are_claimed(self, name: str, count: int) -> None:
        if name in self.sessions:
            one = self.sessions[name]
            self.next += count
            one.take_claim([f"t{self.next - n}" for n in range(count)])
            self.index.freed(one)

    @rule(most=st.integers(1, 5))
    def match(self, most: int) -> None:
        found = self.index.match(most)
        for match in found:
            assert serves(match.session.offer, self.jobs[match.job])
            assert not match.session.draining and match.session.halt is None
            assert match.token not in self.spent
            older = [job for job in self.jobs if job < match.job and serves(match.session.offer, self.jobs[job])]
            assert not older
            self.spent.add(match.token)
            del self.jobs[match.job]
        if len(found) < most:
            for one in self.sessions.values():
                fits = [job for job, wanted in self.jobs.items() if serves(one.offer, wanted)]
                assert not one.free or one.draining or one.halt is not None or not fits

    @invariant()
    def nothing_is_forgotten(self) -> None:
        assert len(self.index) == len(self.jobs)


TestMatchingMachine = MatchingMachine.TestCase
TestMatchingMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
