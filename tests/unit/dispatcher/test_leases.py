"""Leases: renewed by what is listed, standing still without the canary, grants published again when proven lost."""

from leveret_dispatcher.leases import Leases


def leases() -> Leases:
    made = Leases(30.0, longest_tick=3.0)
    made.canary_back(1000.0)
    return made


def pass_time(to: Leases, seconds: int, start: float = 1000.0) -> float:
    for second in range(1, seconds + 1):
        to.canary_back(start + second)
    return start + seconds


def test_a_session_and_its_attempt_are_lost_together_when_nothing_is_heard() -> None:
    held = leases()
    held.join("w")
    held.hold("g", 1, 1, "w", 100, beat=1)
    at = pass_time(held, 29)
    assert held.lost_sessions() == [] and held.lost() == []
    pass_time(held, 1, at)
    assert held.lost_sessions() == ["w"]
    assert [one.grant for one in held.lost()] == ["g"]


def test_a_beat_renews_the_session_and_what_it_lists() -> None:
    held = leases()
    held.hold("listed", 1, 1, "w", 1000, beat=0)
    held.hold("forgotten", 2, 1, "w", 1000, beat=0, acknowledged=True)
    at = pass_time(held, 20)
    held.beat("w", 1, frozenset({"listed"}))
    pass_time(held, 15, at)
    assert held.lost_sessions() == []
    assert [one.grant for one in held.lost()] == ["forgotten"]


def test_without_the_canary_the_clock_stands_still() -> None:
    held = leases()
    held.join("w")
    held.hold("g", 1, 1, "w", 100)
    held.canary_back(1000.0 + 3600)  # an hour's outage is worth three seconds
    pass_time(held, 26, 4600.0)
    assert held.lost_sessions() == [] and held.lost() == []
    pass_time(held, 1, 4626.0)
    assert held.lost_sessions() == ["w"]


def test_the_second_beat_after_a_grant_proves_its_message_lost() -> None:
    held = leases()
    held.hold("g", 1, 1, "w", 100, beat=4)
    assert held.beat("w", 5, frozenset()) == []  # may have been made before the grant came
    assert [one.grant for one in held.beat("w", 6, frozenset())] == ["g"]
    assert held.beat("w", 7, frozenset()) == []
    assert [one.grant for one in held.beat("w", 8, frozenset())] == ["g"]
    assert held.beat("w", 9, frozenset({"g"})) == []
    assert held.beat("w", 12, frozenset()) == []  # it had it: publishing again would run nothing


def test_a_grant_from_before_this_leaders_time_is_measured_from_its_first_beat() -> None:
    held = leases()
    held.hold("g", 1, 1, "w", 100)
    assert held.beat("w", 70, frozenset()) == []
    assert held.beat("w", 71, frozenset()) == []
    assert [one.grant for one in held.beat("w", 72, frozenset())] == ["g"]


def test_a_lost_grant_that_never_arrives_still_loses_its_lease() -> None:
    held = leases()
    held.hold("g", 1, 1, "w", 100, beat=0)
    at = 1000.0
    for number in range(1, 4):
        at = pass_time(held, 10, at)
        held.beat("w", number, frozenset())
    assert [one.grant for one in held.lost()] == ["g"]
    assert held.lost_sessions() == []


def test_a_limit_counts_from_the_start_and_outlives_a_takeover() -> None:
    held = leases()
    held.hold("g", 1, 1, "w", 100)
    held.hold("old", 2, 1, "w", 100, elapsed=5000)
    held.canary_back(1000.0)
    at = pass_time(held, 30)
    assert [one.grant for one in held.overdue()] == ["old"]  # a lease's length is left in any case
    held.release("old")
    held.started("g")
    at = pass_time(held, 99, at)
    assert held.overdue() == []
    pass_time(held, 1, at)
    assert [one.grant for one in held.overdue()] == ["g"]


def test_what_is_released_is_forgotten() -> None:
    held = leases()
    held.hold("g", 1, 1, "w", 100)
    assert held.of_job(1) is held.get("g") is not None
    assert held.unacknowledged() == held.of_worker("w") != []
    held.release("g")
    held.release("g")
    assert (held.of_job(1), held.get("g"), held.of_worker("w")) == (None, None, [])
