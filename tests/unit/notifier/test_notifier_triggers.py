"""Which triggers fire, delivery ids, and the delays between tries."""

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_notifier.schedule import LONGEST_WISH, Schedule
from leveret_notifier.triggers import delivery_id, fired, fires, group_delivery_id, group_id
from leveret_proto.manifest import Trigger
from leveret_proto.manifest.model import CONDITIONS, Condition
from leveret_proto.messages import EndedGroup, GroupState, GroupView, JobFacts, JobStatus

FACTS = JobFacts(job=7, owner="ada", project="engine", submission="s-1", link="abcdefghijklmnop")


@pytest.mark.parametrize(
    ("condition", "statuses"),
    [
        ("always", {"success", "failed", "timeout", "cancelled"}),
        ("success", {"success"}),
        ("failure", {"failed", "timeout", "cancelled"}),
    ],
)
def test_a_trigger_fires_as_on_builds_sr_ht(condition: Condition, statuses: set[str]) -> None:
    ended = [JobStatus.SUCCESS, JobStatus.FAILED, JobStatus.TIMEOUT, JobStatus.CANCELLED]
    assert {status.value for status in ended if fires(condition, status)} == statuses


def test_a_delivery_id_depends_on_the_job_and_the_triggers_place_alone() -> None:
    told_again = FACTS.model_copy(update={"note": "other"})
    assert delivery_id(FACTS, 0) == delivery_id(told_again, 0)
    others = [
        delivery_id(FACTS, 1),
        delivery_id(FACTS.model_copy(update={"job": 8}), 0),
        delivery_id(FACTS.model_copy(update={"link": "ponmlkjihgfedcba"}), 0),
    ]
    assert len({delivery_id(FACTS, 0), *others}) == 4


def test_delivery_ids_are_the_same_in_every_release() -> None:
    assert delivery_id(FACTS, 0) == UUID("a292bfe8-2161-5d3b-8ff8-514ca25bd535")
    assert delivery_id(FACTS, 0).version == 5


END = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)


def ended_group(state: GroupState = "success", owner: str = "ada", name: str = "g", at: datetime = END) -> EndedGroup:
    triggers = tuple(Trigger(action="webhook", condition=condition) for condition in CONDITIONS)
    return EndedGroup(group=GroupView(owner=owner, group=name, state=state), triggers=triggers, ended_at=at)


@pytest.mark.parametrize(("state", "served"), [("success", {"success", "always"}), ("failed", {"failure", "always"})])
def test_a_groups_triggers_fire_by_its_own_end(state: GroupState, served: set[str]) -> None:
    ended = ended_group(state)
    assert {ended.triggers[index].condition for index in fired(ended)} == served


def test_a_groups_delivery_id_depends_on_owner_name_end_and_place_alone() -> None:
    ended = ended_group()
    same = group_id(ended_group("failed", at=END.astimezone(timezone(timedelta(hours=2)))))
    assert group_id(ended) == same == UUID("ae375fe9-11ca-5f52-b6a2-85488c516aa1")
    others = [
        group_id(ended_group(owner="bob")),
        group_id(ended_group(owner="a", name="da.g")),
        group_id(ended_group(owner="a.da", name="g")),
        group_id(ended_group(at=END + timedelta(microseconds=1))),
    ]
    deliveries = [group_delivery_id(group, index) for group in (same, *others) for index in (0, 1)]
    assert len(set(deliveries)) == len(deliveries)
    assert deliveries[0] == group_delivery_id(group_id(ended), 0)


SCHEDULE = Schedule(first=10.0, longest=14400.0, tries=15)


def test_delays_grow_until_the_longest_and_end_with_the_tries() -> None:
    delays = [SCHEDULE.delay(tries, 0.5) for tries in range(1, 16)]
    assert delays[:5] == [10.0, 40.0, 160.0, 640.0, 2560.0]
    assert delays[6:14] == [14400.0] * 8
    assert delays[14] is None
    assert 24 * 3600 < sum(delay for delay in delays if delay) < 48 * 3600


@given(tries=st.integers(1, 10**9), chance=st.floats(0, 1), wished=st.floats(0, 1e12))
def test_a_delay_is_bounded_whatever_is_wished(tries: int, chance: float, wished: float) -> None:
    delay = Schedule(10.0, 14400.0, 10**9 + 1).delay(tries, chance, wished)
    assert delay is not None
    assert 8.0 <= delay <= max(14400.0 * 1.2, LONGEST_WISH)
    assert delay >= min(wished, LONGEST_WISH)


def test_chance_spreads_deliveries_that_failed_together() -> None:
    assert SCHEDULE.delay(2, 0.0) == pytest.approx(32.0)
    assert SCHEDULE.delay(2, 1.0) == pytest.approx(48.0)
