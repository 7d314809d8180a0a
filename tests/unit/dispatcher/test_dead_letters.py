"""What is made of a dead message, and what may be published again: its sender may have written any header."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_dispatcher.dead_letters import HISTORY, DeadLetter, Delivered, parcel, read, refusal
from leveret_proto.topology import COMMANDS, DISPATCHER_COMMANDS, DISPATCHER_JOBS, INTAKE_SUBMISSIONS, SUBMIT
from leveret_runtime.dead import HEADERS_KEPT, KEPT, carried_headers
from leveret_runtime.hostile_frames import UNREADABLE_HEADERS

TOLD = {
    "x-leveret-reason": "no", "x-leveret-service": "intake", "x-leveret-exchange": SUBMIT, "x-leveret-key": "~ada.p",
    "x-leveret-bytes": 4, "x-leveret-sha256": "0" * 64, "x-leveret-message-id": "m", "x-leveret-headers": '{"a": 1}',
}  # fmt: skip
DEATH = {"count": 1, "reason": "delivery_limit", "queue": INTAKE_SUBMISSIONS, "exchange": SUBMIT,
         "routing-keys": ["~ada.p"]}  # fmt: skip


def letter(headers: dict[str, Any], queue: str = INTAKE_SUBMISSIONS, body: bytes = b"body") -> DeadLetter:
    return read(Delivered(queue, headers, body, type="t", message_id="own", content_type="application/yaml"))


def test_a_service_says_where_a_message_came_from() -> None:
    given = letter(TOLD)
    assert (given.service, given.reason, given.exchange, given.key) == ("intake", "no", SUBMIT, "~ada.p")
    assert refusal(given) is None
    sent = parcel(given)
    assert (sent.body, sent.type, sent.content_type, sent.message_id, sent.headers) == (
        b"body", "t", "application/yaml", "m", {"a": 1},
    )  # fmt: skip


def test_of_a_message_that_the_broker_gave_up_only_the_brokers_account_is_believed() -> None:
    forged = TOLD | {"x-leveret-exchange": "leveret.control", "x-leveret-key": "w1.s", "note": "mine"}
    given = letter(forged | {"x-death": [DEATH], "x-first-death-queue": "q", "x-delivery-count": 50})
    assert (given.service, given.reason, given.exchange, given.key) == (None, "delivery_limit", SUBMIT, "~ada.p")
    assert given.sha256 != "0" * 64
    sent = parcel(given)
    assert sent.message_id == "own"
    # what the broker added would have it dropped as one that goes in circles
    assert sent.headers == forged


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"x-leveret-bytes": 5}, "only 4 of its 5 bytes were kept"),
        ({"x-leveret-headers": None}, "its headers could not be kept"),
        ({"x-leveret-exchange": "amq.topic"}, "does not lead to leveret.intake.submissions, where it died"),
        ({"x-leveret-exchange": "leveret.work"}, "does not lead to"),
        ({"x-leveret-key": "~ada.p.more"}, "does not lead to"),
        ({"x-leveret-exchange": ""}, "does not lead to"),
    ],
)
def test_what_can_not_go_back_as_it_came_is_refused(changes: dict[str, Any], why: str) -> None:
    assert why in (refusal(letter(TOLD | changes)) or "")


def test_nothing_goes_back_to_a_queue_that_is_not_ours_or_as_a_command() -> None:
    assert "none of Leveret's queues" in (refusal(letter(TOLD, queue="amq.gen-x")) or "")
    expired = DEATH | {"exchange": COMMANDS, "routing-keys": ["dead.~mallory"]}
    assert "gives it again" in (refusal(letter({"x-death": [expired]}, DISPATCHER_COMMANDS)) or "")
    # an account of another queue's message is no way into this one
    assert "does not lead to" in (refusal(letter({"x-death": [DEATH]}, DISPATCHER_JOBS)) or "")


def test_history_keeps_the_brokers_account_however_long_the_rest_is() -> None:
    given = letter({"aaa": "x" * 3 * HISTORY, "x-death": [DEATH]})
    assert len(given.history) == HISTORY and "routing-keys" in given.history


@pytest.mark.parametrize("headers", [
    {UNREADABLE_HEADERS: True}, {"a": b"\xff"}, {"a": float("nan")}, {"a": "x" * HEADERS_KEPT}, {"a": object()},
])  # fmt: skip
def test_headers_that_do_not_read_back_are_not_carried(headers: dict[str, Any]) -> None:
    assert carried_headers(headers) is None


HEADER = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from([*TOLD, "x-death", "x-first-death-queue", UNREADABLE_HEADERS]) | st.text()


@given(st.dictionaries(NAMES, HEADER, max_size=6), st.binary(max_size=40), st.text())
def test_hostile_headers_are_filed_within_bounds_and_break_nothing(
    headers: dict[str, Any], body: bytes, queue: str
) -> None:
    given = letter(headers, queue, body)
    texts = [given.queue, given.reason, given.service or "", given.exchange, given.key, given.history]
    assert all("\0" not in text and len(text) <= HISTORY for text in texts)
    assert len(given.body) <= KEPT and given.size >= len(given.body)
    assert len(given.sha256) == 64
    assert given.kept >= len(given.body)
    if refusal(given) is None:
        assert isinstance(json.loads(given.headers or ""), dict)


@given(st.dictionaries(st.text(min_size=1), HEADER, max_size=5))
def test_headers_that_are_carried_read_back_as_the_same(headers: dict[str, Any]) -> None:
    carried = carried_headers(headers)
    assert carried is None or json.loads(carried) == headers
