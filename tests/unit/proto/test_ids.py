from uuid import RFC_4122, UUID

from hypothesis import given
from hypothesis import strategies as st

from leveret_proto.ids import message_id, uuid7

MILLISECONDS = st.integers(0, 2**48 - 1)


@given(MILLISECONDS)
def test_version_and_variant(at: int) -> None:
    made = uuid7(at)
    assert made.version == 7
    assert made.variant == RFC_4122
    assert made.int >> 80 == at


@given(MILLISECONDS, MILLISECONDS)
def test_ids_sort_by_the_time_they_were_made(one: int, other: int) -> None:
    if one != other:
        assert (uuid7(one) < uuid7(other)) == (one < other)
        assert (str(uuid7(one)) < str(uuid7(other))) == (one < other)


def test_ids_of_one_moment_differ() -> None:
    assert len({uuid7(1) for _ in range(1000)}) == 1000


def test_a_message_id_is_a_uuid7_of_now() -> None:
    before, made, after = uuid7(), UUID(message_id()), uuid7()
    assert before.int >> 80 <= made.int >> 80 <= after.int >> 80
    assert made.version == 7
