"""Matching against a model that looks at everything: no slot idle beside a job it serves, oldest first."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from leveret_dispatcher import matching
from leveret_dispatcher.matching import Matching, Session
from leveret_proto.capability import Capabilities, ImageOffer, Requirement, serves
from leveret_proto.messages import Reason

A = Requirement(arch="x86_64", image="a")
B = Requirement(arch="x86_64", image="b")
A_BIG = Requirement(arch="x86_64", image="a", tags=("disk=large",))
REQUIREMENTS = (A, B, A_BIG)


def offer(*images: str, tags: tuple[str, ...] = ()) -> Capabilities:
    return Capabilities(images=tuple(ImageOffer(arch="x86_64", name=name, digest="0") for name in images), tags=tags)


def session(name: str, offered: Capabilities, *tokens: str) -> Session:
    made = Session(name, f"session-{name}", "spool", offered, 4)
    made.take_beat(tokens)
    return made


def pairs(index: Matching, most: int = 100) -> list[tuple[int, str]]:
    return [(match.job, match.session.worker) for match in index.match(most)]


def test_the_oldest_job_goes_first_whichever_came_first() -> None:
    index = Matching()
    for job, requirement in ((3, A), (1, B), (2, A)):
        index.add(job, requirement, Reason.SUBMITTED)
    index.seat(session("w", offer("a", "b"), "t1", "t2"))
    assert pairs(index) == [(1, "w"), (2, "w")]
    assert len(index) == 1


def test_a_second_idle_session_is_found_when_the_first_takes_another_job() -> None:
    index = Matching()
    index.seat(session("both", offer("a", "b"), "t1"))
    index.seat(session("only-b", offer("b"), "t2"))
    index.add(1, A, Reason.SUBMITTED)
    index.add(2, B, Reason.SUBMITTED)
    assert sorted(pairs(index)) == [(1, "both"), (2, "only-b")]


def test_work_spreads_over_idle_sessions() -> None:
    index = Matching()
    for name in ("w1", "w2"):
        index.seat(session(name, offer("a"), f"{name}-1", f"{name}-2"))
    for job in range(4):
        index.add(job, A, Reason.SUBMITTED)
    assert [worker for _, worker in pairs(index)] == ["w1", "w2", "w1", "w2"]


def test_a_beat_that_was_on_its_way_does_not_free_a_spent_token() -> None:
    index = Matching()
    one = session("w", offer("a"), "t1")
    index.seat(one)
    index.add(1, A, Reason.SUBMITTED)
    assert pairs(index) == [(1, "w")]
    one.take_beat(["t1", "t2"])
    index.freed(one)
    index.add(2, A, Reason.SUBMITTED)
    index.add(3, A, Reason.SUBMITTED)
    assert pairs(index) == [(2, "w")]
    one.take_beat(["t3"])
    assert (dict(one.free), one.used) == ({"t3": None}, set())


def test_a_returned_job_goes_to_its_place_in_line() -> None:
    index = Matching()
    index.add(5, A, Reason.SUBMITTED)
    index.add(2, A, Reason.LOST)
    index.seat(session("w", offer("a"), "t"))
    assert pairs(index) == [(2, "w")]


def test_reasons_are_given_when_they_change_and_only_then() -> None:
    index = Matching()
    index.add(1, A_BIG, Reason.SUBMITTED)
    small = session("small", offer("a"))
    index.seat(small)
    why = "no worker offers a on x86_64 with disk=large; nearest is small, which lacks tags disk=large"
    assert index.untold(10) == [(1, Reason.NO_WORKER, why)]
    assert index.untold(10) == []
    big = session("big", offer("a", tags=("disk=large",)))
    index.seat(big)
    assert index.untold(10) == [(1, Reason.BUSY, None)]
    index.seat(big)  # as after a changed offer that still serves the job
    assert index.untold(10) == []
    index.unseat(big)
    assert [reason for _, reason, _ in index.untold(10)] == [Reason.NO_WORKER]


def test_a_draining_session_serves_nothing() -> None:
    index = Matching()
    one = session("w", offer("a"), "t")
    one.draining = True
    index.seat(one)
    index.add(1, A, Reason.SUBMITTED)
    assert pairs(index) == []
    assert [reason for _, reason, _ in index.untold(10)] == [Reason.NO_WORKER]


def test_a_withdrawn_capability_is_believed_again_when_seated_again() -> None:
    index = Matching()
    one = session("w", offer("a", "b"), "t1", "t2")
    index.seat(one)
    index.withdraw(one, A)
    index.add(1, A, Reason.SUBMITTED)
    index.add(2, B, Reason.SUBMITTED)
    assert pairs(index) == [(2, "w")]
    assert one.withdrawn
    index.seat(one)
    assert pairs(index) == [(1, "w")]
    assert not one.withdrawn


def test_empty_lines_are_forgotten_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "KEPT_LINES", 10)
    index = Matching()
    one = session("w", offer("a", tags=tuple(str(n) for n in range(50))))
    index.seat(one)
    for number in range(50):
        index.add(number, Requirement(arch="x86_64", image="a", tags=(str(number),)), Reason.SUBMITTED)
        index.remove(number)
    assert len(one.lines) <= 10
    index.add(99, A, Reason.SUBMITTED)
    one.take_beat(["t"])
    index.freed(one)
    assert pairs(index) == [(99, "w")]


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
        self.index.add(self.next, requirement, Reason.SUBMITTED)

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
        draining=st.booleans(),
    )
    def session_is_seated(self, name: str, images: set[str], tagged: bool, draining: bool) -> None:
        one = self.sessions.setdefault(name, session(name, Capabilities()))
        one.offer, one.draining = offer(*sorted(images), tags=("disk=large",) if tagged else ()), draining
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
            assert serves(match.session.offer, self.jobs[match.job]) and not match.session.draining
            assert match.token not in self.spent
            older = [job for job in self.jobs if job < match.job and serves(match.session.offer, self.jobs[job])]
            assert not older
            self.spent.add(match.token)
            del self.jobs[match.job]
        if len(found) < most:
            for one in self.sessions.values():
                fits = [job for job, wanted in self.jobs.items() if serves(one.offer, wanted)]
                assert not one.free or one.draining or not fits

    @invariant()
    def nothing_is_forgotten(self) -> None:
        assert len(self.index) == len(self.jobs)


TestMatchingMachine = MatchingMachine.TestCase
TestMatchingMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
