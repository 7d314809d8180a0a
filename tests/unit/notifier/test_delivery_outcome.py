"""What the other end's answer means: delivered, try again, or never."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_notifier.outcome import judge_http, judge_recipients, judge_smtp


@given(st.integers(100, 599))
def test_http_statuses(status: int) -> None:
    outcome = judge_http(status, "")
    if 200 <= status < 300:
        assert outcome.status == "delivered"
    elif status in (408, 425, 429) or status >= 500:
        assert outcome.status == "retrying"
    else:
        assert outcome.status == "failed"


@pytest.mark.parametrize(
    ("header", "seconds"), [("120", 120.0), (" 5 ", 5.0), (None, 0), ("-3", 0), ("١", 0), ("9" * 400, 0), ("Wed", 0)]
)
def test_retry_after_in_seconds_is_heeded(header: str | None, seconds: float) -> None:
    assert judge_http(503, "", header).wished == seconds


@pytest.mark.parametrize(("code", "status"), [(451, "retrying"), (421, "retrying"), (550, "failed"), (554, "failed")])
def test_smtp_codes(code: int, status: str) -> None:
    assert judge_smtp(code, "text").status == status


def test_only_recipients_refused_for_now_are_tried_again() -> None:
    outcome = judge_recipients(["a@x", "b@x", "c@x"], {"b@x": (451, "later"), "c@x": (550, "never")}, 0)
    assert (outcome.status, outcome.remaining, outcome.reached) == ("retrying", ("b@x",), 1)


def test_a_mail_is_delivered_once_someone_got_it_and_nobody_is_left() -> None:
    assert judge_recipients(["a@x", "b@x"], {"b@x": (550, "")}, 0).status == "delivered"
    assert judge_recipients(["b@x"], {"b@x": (550, "")}, 1).status == "delivered"
    assert judge_recipients(["b@x"], {"b@x": (550, "")}, 0).status == "failed"


@given(st.integers(400, 599), st.text())
def test_what_is_published_names_no_address_and_repeats_no_answer(code: int, said: str) -> None:
    secret = f"quince {said}"
    outcomes = [
        judge_http(code, secret),
        judge_smtp(code, secret),
        judge_recipients(["bob@example.org"], {"bob@example.org": (code, secret)}, 0),
    ]
    for outcome in outcomes:
        assert "quince" not in outcome.detail and "example" not in outcome.detail
        assert "quince" in outcome.answer
