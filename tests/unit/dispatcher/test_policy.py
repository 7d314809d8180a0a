"""Fair share, priority and limits against a model that looks at everything; and what a match costs, counted."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from leveret_dispatcher import fair_share
from leveret_dispatcher.matching import Match, Matching, Session
from leveret_proto.capability import Requirement, serves
from leveret_proto.messages import Reason
from tests.support.capabilities import offers, wants

IMAGES = "abc"
OWNERS = ("~alice", "~bob", "~carol")
LIMITS = {"~alice": 2, "~carol": 1}


def session(name: str, *images: str, slots: int = 0) -> Session:
    made = Session(name, f"session-{name}", "spool", offers(*images), slots)
    made.take_beat([f"{name}-{slot}" for slot in range(slots)])
    return made


def granted(index: Matching, most: int = 100) -> list[tuple[int, str]]:
    return [(match.job, match.owner) for match in index.match(most)]


@dataclass
class Waiting:
    """A waiting job of the model."""

    id: int
    owner: str
    requirement: Requirement
    priority: int


class PolicyModel:
    """The policy as it is told to people, without any index."""

    def __init__(self) -> None:
        self.waiting: dict[int, Waiting] = {}
        self.running: Counter[str] = Counter()
        self.last: dict[str, int] = {}
        self.came: list[str] = []
        self.grants = 0

    def add(self, job: Waiting) -> None:
        self.waiting[job.id] = job
        if job.owner not in self.came:
            self.came.append(job.owner)

    def choose(self, one: Session) -> Waiting | None:
        """Give the job that the policy would have a free slot of the session run."""
        fit = [
            job
            for job in self.waiting.values()
            if serves(one.offer, job.requirement) and self.running[job.owner] < LIMITS.get(job.owner, 10**9)
        ]
        if not fit:
            return None
        owner = min(
            {job.owner for job in fit},
            key=lambda name: (self.running[name], self.last.get(name, 0), self.came.index(name)),
        )
        return min((job for job in fit if job.owner == owner), key=lambda job: (-job.priority, job.id))

    def take(self, job: int) -> None:
        owner = self.waiting.pop(job).owner
        self.grants += 1
        self.last[owner] = self.grants
        self.running[owner] += 1


class PolicyMachine(RuleBasedStateMachine):
    """Every match is the one that the model makes; and no slot stays free beside a job that may run there."""

    def __init__(self) -> None:
        super().__init__()
        self.index = Matching(LIMITS.get)
        self.model = PolicyModel()
        self.sessions: dict[str, Session] = {}
        self.under_way: list[Match] = []
        self.next = 0

    @rule(owner=st.sampled_from(OWNERS), image=st.sampled_from(IMAGES), priority=st.integers(-1, 1))
    def job_comes(self, owner: str, image: str, priority: int) -> None:
        self.next += 1
        self.model.add(Waiting(self.next, owner, wants(image), priority))
        self.index.add(self.next, owner, wants(image), priority, Reason.SUBMITTED)

    @rule(data=st.data(), priority=st.integers(-2, 2))
    def priority_changes(self, data: st.DataObject, priority: int) -> None:
        if self.model.waiting:
            job = data.draw(st.sampled_from(sorted(self.model.waiting)))
            self.model.waiting[job].priority = priority
            self.index.prioritize(job, priority)

    @rule(data=st.data())
    def job_goes(self, data: st.DataObject) -> None:
        if self.model.waiting:
            job = data.draw(st.sampled_from(sorted(self.model.waiting)))
            del self.model.waiting[job]
            self.index.remove(job)

    @rule(name=st.sampled_from("xy"), images=st.sets(st.sampled_from(IMAGES)))
    def session_is_seated(self, name: str, images: set[str]) -> None:
        one = self.sessions.setdefault(name, session(name))
        one.offer = offers(*sorted(images))
        self.index.seat(one)

    @rule(name=st.sampled_from("xy"))
    def session_goes(self, name: str) -> None:
        if name in self.sessions:
            self.index.unseat(self.sessions.pop(name))

    @rule(name=st.sampled_from("xy"), count=st.integers(1, 3))
    def slots_become_free(self, name: str, count: int) -> None:
        if name in self.sessions:
            self.next += count
            self.sessions[name].take_claim([f"t{self.next - n}" for n in range(count)])
            self.index.freed(self.sessions[name])

    @rule(most=st.integers(1, 4))
    def match(self, most: int) -> None:
        found = self.index.match(most)
        for match in found:
            chosen = self.model.choose(match.session)
            assert chosen is not None
            assert (match.job, match.owner, match.priority) == (chosen.id, chosen.owner, chosen.priority)
            self.model.take(match.job)
            self.under_way.append(match)
        if len(found) < most:
            assert not any(one.free and self.model.choose(one) for one in self.sessions.values())

    @rule(data=st.data(), again=st.booleans())
    def attempt_is_over(self, data: st.DataObject, again: bool) -> None:
        if self.under_way:
            match = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
            self.model.running[match.owner] -= 1
            self.index.release(match.owner)
            if again:  # lost, or the match was not made use of
                self.model.add(Waiting(match.job, match.owner, match.requirement, match.priority))
                self.index.add(match.job, match.owner, match.requirement, match.priority, match.told)

    @invariant()
    def limits_hold_and_nothing_is_forgotten(self) -> None:
        assert all(self.model.running[owner] <= limit for owner, limit in LIMITS.items())
        assert len(self.index) == len(self.model.waiting)


TestPolicyMachine = PolicyMachine.TestCase
TestPolicyMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@settings(max_examples=50, deadline=None)
@given(
    jobs=st.lists(st.tuples(st.sampled_from(OWNERS), st.sampled_from(IMAGES), st.integers(-2, 2)), max_size=40),
    offered=st.lists(st.sets(st.sampled_from(IMAGES), min_size=1), min_size=1, max_size=3),
    ends=st.randoms(use_true_random=False),
)
def test_nobody_starves_as_long_as_jobs_end(
    jobs: list[tuple[str, str, int]], offered: list[set[str]], ends: Random
) -> None:
    index = Matching(LIMITS.get)
    for number, images in enumerate(offered):
        index.seat(session(f"w{number}", *sorted(images), slots=1))
    fit = set()
    for job, (owner, image, priority) in enumerate(jobs):
        index.add(job, owner, wants(image), priority, Reason.SUBMITTED)
        if any(image in images for images in offered):
            fit.add(job)
    started: list[tuple[int, str]] = []
    running: list[Match] = []
    while True:
        found = index.match(100)
        running += found
        started += [(match.job, match.owner) for match in found]
        if not running:
            break
        over = running.pop(ends.randrange(len(running)))
        index.release(over.owner)
        over.session.take_claim([f"{over.token}'"])
        index.freed(over.session)
    assert {job for job, _ in started} == fit and len(started) == len(fit)
    # no overtaking within a class: of one owner's jobs of one kind, the higher priority and then the older goes first
    for owner in OWNERS:
        for image in IMAGES:
            order = [job for job, name in started if name == owner and jobs[job][1] == image]
            assert order == sorted(order, key=lambda job: (-jobs[job][2], job))


def test_a_late_owner_shares_at_once_with_one_who_came_with_thousands() -> None:
    index = Matching()
    for job in range(2000):
        index.add(job, "~alice", wants("a"), 100, Reason.SUBMITTED)
    one = session("w", "a", slots=4)
    index.seat(one)
    assert [owner for _, owner in granted(index)] == ["~alice"] * 4
    for job in range(2000, 2005):
        index.add(job, "~bob", wants("a"), -100, Reason.SUBMITTED)
    turns = []
    for turn in range(4):
        index.release("~alice")
        one.take_claim([f"later-{turn}"])
        index.freed(one)
        turns += [owner for _, owner in granted(index)]
    assert turns == ["~bob", "~bob", "~alice", "~alice"]  # two each, for good


def test_one_job_at_a_time_is_no_way_past_those_who_wait() -> None:
    index = Matching()
    one = session("w", "a")
    index.seat(one)
    for job in (1, 2, 3):
        index.add(job, "~alice", wants("a"), 0, Reason.SUBMITTED)
    turns: list[str] = []
    for job in range(10, 15):
        index.add(job, "~bob", wants("a"), 0, Reason.SUBMITTED)  # comes back before its turn, with nothing running
        one.take_claim([f"slot-{job}"])
        index.freed(one)
        turns += [owner for _, owner in granted(index)]
        index.release(turns[-1])
        if turns[-1] == "~alice":
            index.remove(job)
    assert turns == ["~alice", "~bob", "~alice", "~bob", "~alice"]


def test_owners_without_jobs_are_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_share, "KEPT_OWNERS", 3)
    index = Matching()
    for number in range(20):
        index.add(number, f"~{number}", wants("a"), 0, Reason.SUBMITTED)
        index.remove(number)
    assert len(index._owners._owners) == 3
    index.hold("~runs")
    index.add(99, "~waits", wants("a"), 0, Reason.SUBMITTED)
    for number in range(20):
        index.add(number, f"~{number}", wants("a"), 0, Reason.SUBMITTED)
        index.remove(number)
    assert {"~runs", "~waits"} <= index._owners._owners.keys()


class Steps:
    """Counts the lines run in the dispatcher's own modules, and whatever is done to a `CountedJob`."""

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(before)

    def _enter(self, frame: FrameType, event: str, arg: object) -> Callable[..., Any] | None:
        return self._line if "leveret_dispatcher" in frame.f_code.co_filename else None

    def _line(self, frame: FrameType, event: str, arg: object) -> Callable[..., Any]:
        self.count += event == "line"
        return self._line


def counted_job(steps: Steps) -> type[int]:
    """A job's number of which every comparison and look-up, be it in C, counts as a step."""

    class CountedJob(int):
        def __hash__(self) -> int:
            steps.count += 1
            return super().__hash__()

        def __eq__(self, other: object) -> bool:
            steps.count += 1
            return super().__eq__(other)

        def __lt__(self, other: int) -> bool:
            steps.count += 1
            return super().__lt__(other)

    return CountedJob


def steps_of_a_grant(jobs: int, owners: int, sessions: int) -> float:
    """Give the steps that granting one job, ending one and telling the reasons take, beside so many others."""
    steps = Steps()
    number = counted_job(steps)
    index = Matching(lambda owner: 3)
    seats = [session(f"w{n}", "a", "b", slots=1) for n in range(sessions)]
    for job in range(jobs):
        index.add(number(job), f"~{job % owners}", wants("ab"[job % 2]), job % 7, Reason.SUBMITTED)
    for one in seats:
        index.seat(one)
    running = index.match(sessions)
    while index.untold(100, 0.0):
        pass
    grants = 50
    with steps.counting():
        steps.count = 0
        for grant in range(grants):
            over = running.pop(0)
            index.release(over.owner)
            over.session.take_claim([f"again-{grant}"])
            index.freed(over.session)
            running += index.match(100)
            assert not index.untold(100, 0.1 * grant)
        count = steps.count / grants
    assert len(running) == sessions
    return count


def test_a_match_costs_the_same_beside_100_jobs_and_10_000() -> None:
    few = steps_of_a_grant(jobs=100, owners=10, sessions=10)
    many = steps_of_a_grant(jobs=10_000, owners=500, sessions=1000)
    assert many < 2 * few, (few, many)  # heaps cost the logarithm: a hundred times as many jobs are twice as deep
