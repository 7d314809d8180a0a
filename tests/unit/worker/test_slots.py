"""Slot tokens: one a slot, good once."""

from hypothesis import given
from hypothesis import strategies as st

from leveret_worker.slots import Slots


def numbered(count: int) -> Slots:
    numbers = iter(range(10_000))
    return Slots(count, lambda: f"token-{next(numbers)}")


def test_a_token_is_good_once() -> None:
    slots = numbered(1)
    (token,) = slots.tokens
    assert slots.take(token)
    assert not slots.take(token)
    assert slots.tokens == ()


def test_a_freed_slot_has_a_new_token() -> None:
    slots = numbered(1)
    (old,) = slots.tokens
    slots.take(old)
    new = slots.free()
    assert new != old
    assert slots.tokens == (new,)
    assert not slots.take(old)


def test_closed_slots_name_and_take_nothing_until_they_are_opened_with_tokens_never_refused() -> None:
    slots = numbered(2)
    refused, other = slots.tokens
    slots.close()
    assert slots.tokens == ()
    assert not slots.take(refused)
    slots.open()
    assert other in slots.tokens and refused not in slots.tokens and len(slots.tokens) == 2
    assert not slots.take(refused)


@given(st.lists(st.sampled_from(["take", "free"]), max_size=40))
def test_no_token_ever_comes_twice_and_never_more_than_the_slots(steps: list[str]) -> None:
    slots = numbered(3)
    seen = set(slots.tokens)
    used = 0
    for step in steps:
        if step == "take" and slots.tokens:
            assert slots.take(slots.tokens[0])
            used += 1
        elif step == "free" and used:
            token = slots.free()
            used -= 1
            assert token not in seen
            seen.add(token)
        assert len(slots.tokens) + used == 3
