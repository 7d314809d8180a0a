"""When a group has ended, and how; what may not be said of it."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from leveret_dispatcher.groups import MOST, Group, objection, room, state, view
from leveret_proto.base import Visibility
from leveret_proto.manifest import Trigger
from leveret_proto.messages import CloseGroup, GroupMember, JobStatus

S, F, R = JobStatus.SUCCESS, JobStatus.FAILED, JobStatus.RUNNING
HOOK = Trigger(action="webhook", condition="always", url="https://example.org/")


def group(*statuses: JobStatus, closing: CloseGroup | None = None) -> Group:
    return Group("~alice", "g", closing, tuple(GroupMember(job=n, status=s) for n, s in enumerate(statuses, 1)))


@pytest.mark.parametrize(
    ("size", "statuses", "stands"),
    [
        (None, [], "open"),
        (None, [S, S], "open"),
        (2, [], "closed"),
        (2, [S], "closed"),
        (2, [F, R], "closed"),
        (2, [S, S], "success"),
        (2, [S, F], "failed"),
        (2, [JobStatus.TIMEOUT, S], "failed"),
        (2, [S, JobStatus.CANCELLED], "failed"),
    ],
)
def test_a_group_ends_with_its_last_job_and_succeeds_with_all_of_them(
    size: int | None, statuses: list[JobStatus], stands: str
) -> None:
    assert state(size, statuses) == stands
    closing = None if size is None else CloseGroup(group="g", size=size)
    assert group(*statuses, closing=closing).state == stands


@dataclass
class Course:
    """A group on its way, as the dispatcher has it: what joins, ends and is said of it in some order."""

    size: int
    closed: bool = False
    members: list[JobStatus] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)

    def happens(self, what: JobStatus | None) -> None:
        """A job of this end joins and ends; None: the group is closed, where it may be."""
        said = self.size if self.closed else None
        if what is not None:
            self.members += [what][: room(said, len(self.members))]
        elif len(self.members) <= self.size:
            self.closed = True
        stands = state(self.size if self.closed else None, self.members)
        if stands in ("success", "failed"):
            self.ends.append(stands)


@given(
    before=st.lists(st.sampled_from([S, F, JobStatus.CANCELLED, JobStatus.TIMEOUT]), max_size=8),
    after=st.lists(st.sampled_from([S, F, JobStatus.CANCELLED, JobStatus.TIMEOUT]), max_size=8),
    size=st.integers(1, 8),
)
def test_whenever_it_is_closed_the_first_jobs_that_came_decide_and_its_end_never_changes(
    before: list[JobStatus], after: list[JobStatus], size: int
) -> None:
    course = Course(size)
    for what in (*before, None, *after):
        course.happens(what)
    counted = (before + after)[:size]
    if len(before) > size or len(counted) < size:
        assert course.ends == []
    else:
        assert set(course.ends) == {"success" if set(counted) == {S} else "failed"}
        assert course.members == counted


def test_an_open_group_takes_as_many_jobs_as_can_be_said() -> None:
    assert (room(None, 0), room(None, MOST), room(3, 1), room(3, 3), room(1, 3)) == (MOST, 0, 2, 0, 0)
    assert CloseGroup(group="g", size=MOST)
    with pytest.raises(ValidationError):
        CloseGroup(group="g", size=MOST + 1)


def test_the_same_words_are_no_objection_and_others_are_a_conflict() -> None:
    said = CloseGroup(group="g", size=2, triggers=(HOOK,), note="n")
    assert objection(group(S), said) is None
    assert objection(group(S, S, closing=said), said.model_copy()) is None
    for other in ({"size": 3}, {"triggers": ()}, {"note": None}, {"visibility": Visibility.PUBLIC}):
        refused = objection(group(S, closing=said), said.model_copy(update=other))
        assert refused is not None
        assert (refused.code, "choose another" in refused.message) == ("conflict", True)


def test_a_size_below_the_jobs_there_are_is_a_conflict() -> None:
    refused = objection(group(S, R, F), CloseGroup(group="g", size=2))
    assert refused is not None
    assert (refused.code, refused.message) == ("conflict", "group g has 3 jobs already; its size can't be 2")


@pytest.mark.parametrize(
    ("trigger", "told"),
    [
        ({"action": "webhook"}, "a webhook needs 'url'"),
        ({"action": "email"}, "a mail needs 'to' or 'cc'"),
        ({"action": "email", "cc": "nobody"}, "no mail can be sent"),
    ],
)
def test_a_trigger_that_could_never_be_served_is_refused(trigger: dict[str, str], told: str) -> None:
    said = CloseGroup(group="g", size=1, triggers=(HOOK, Trigger.model_validate({"condition": "always"} | trigger)))
    refused = objection(group(), said)
    assert refused is not None
    assert refused.code == "bad-request"
    assert told in refused.message


def test_the_view_has_what_was_said_and_how_the_jobs_stand() -> None:
    shown = view(group(S, R))
    assert (shown.owner, shown.group, shown.state, shown.size, shown.note) == ("~alice", "g", "open", None, None)
    said = CloseGroup(group="g", size=2, visibility=Visibility.PUBLIC, note="n")
    shown = view(group(S, F, closing=said))
    assert (shown.state, shown.size, shown.visibility, shown.note) == ("failed", 2, Visibility.PUBLIC, "n")
    assert [(member.job, member.status) for member in shown.jobs] == [(1, S), (2, F)]
