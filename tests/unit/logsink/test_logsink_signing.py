"""Signed links: good for one path and until one moment, whatever else is tried."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_logsink.signing import Signer, same_word

KEY = base64.b64encode(bytes(range(32))).decode()
PATH = "/jobs/7/word/1/logs/build"


def parts(query: str) -> tuple[str, str]:
    expires, _, signature = query.removeprefix("?expires=").partition("&signature=")
    return expires, signature


def test_a_link_is_good_until_it_expires() -> None:
    signer = Signer(KEY)
    expires, signature = parts(signer.query(PATH, 1000))
    assert expires == "1000"
    assert signer.judge(PATH, expires, signature, 999.9) == "good"
    assert signer.judge(PATH, expires, signature, 1000) == "expired"
    other = Signer(base64.b64encode(bytes(32)).decode())
    assert other.judge(PATH, expires, signature, 0) == "bad"


@given(st.text(max_size=60), st.text(max_size=20), st.text(max_size=60))
def test_nothing_else_is(path: str, expires: str, signature: str) -> None:
    signer = Signer(KEY)
    assert signer.judge(path, expires, signature, 0) == "bad"
    given_expires, given_signature = parts(signer.query(PATH, 1000))
    for tried in ((path, given_expires, given_signature), (PATH, expires, given_signature)):
        if tried != (PATH, given_expires, given_signature):
            assert signer.judge(*tried, 0) == "bad"
    if signature != given_signature:
        assert signer.judge(PATH, given_expires, signature, 0) == "bad"


@pytest.mark.parametrize("expires", ["", "0", "01000", "+1000", "1000 ", "1e3", "-1", "٣", "1" * 13])
def test_an_expiry_in_another_form_is_bad(expires: str) -> None:
    signer = Signer(KEY)
    _, signature = parts(signer.query(PATH, 1000))
    assert signer.judge(PATH, expires, signature, 0) == "bad"


@pytest.mark.parametrize("key", ["", "not base64!", base64.b64encode(b"short").decode()])
def test_a_key_of_another_length_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=r"base64|bytes"):
        Signer(key)


def test_words_are_compared_whatever_they_hold() -> None:
    assert same_word("a", "a")
    assert not same_word("a", "ab")
    assert not same_word("a", "\udcff")
