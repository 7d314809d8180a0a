"""Payloads: what the host refuses to send, and what it refuses to believe."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_guestapi import requests
from leveret_guestapi.codec import MAX_PAYLOAD, ProtocolViolation
from leveret_guestapi.requests import ExitStatus, GuestError

HELLO = {
    "agent": "1.0",
    "pid": 1,
    "python": "3.11",
    "system": "Linux",
    "release": "6.1",
    "machine": "x86_64",
    "boot_id": "b",
    "uptime": 0.5,
}
PARSERS = (
    requests.parse_error,
    requests.parse_hello,
    requests.parse_exit_status,
    requests.parse_file_status,
    requests.parse_size,
)


def test_a_right_hello_is_read() -> None:
    assert requests.parse_hello(json.dumps(HELLO | {"unknown": 1}).encode()).machine == "x86_64"


@pytest.mark.parametrize(
    "change",
    [{"pid": "1"}, {"pid": True}, {"pid": -1}, {"pid": 10**30}, {"uptime": "x"}, {"agent": None}, {"uptime": 10**400}],
)
def test_a_wrong_hello_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ProtocolViolation, match=next(iter(change))):
        requests.parse_hello(json.dumps(HELLO | change).encode())


def test_infinity_is_no_time() -> None:
    with pytest.raises(ProtocolViolation, match="uptime"):
        requests.parse_hello(json.dumps(HELLO | {"uptime": float("inf")}).encode())


@given(st.one_of(st.binary(max_size=200), st.recursive(st.none() | st.integers() | st.text(), st.lists).map(repr)))
def test_no_answer_does_worse_than_a_violation(answer: bytes | str) -> None:
    payload = answer if isinstance(answer, bytes) else answer.encode("utf-8", "replace")
    for parse in PARSERS:
        with pytest.raises(ProtocolViolation):
            parse(payload)


@pytest.mark.parametrize(
    "payload", [b"[" * MAX_PAYLOAD, b'{"a":' * 6000, b"9" * MAX_PAYLOAD, b"\xff\xfe", b"null", b""]
)
def test_bombs_are_refused(payload: bytes) -> None:
    for parse in PARSERS:
        with pytest.raises(ProtocolViolation):
            parse(payload)


def test_texts_from_the_guest_are_bounded_and_harmless() -> None:
    error = requests.parse_error(json.dumps({"errno": "E\x1b[2J", "message": "m" * 5000}).encode())
    assert "\x1b" not in error.errno
    assert len(error.message) == requests.MAX_TEXT


def test_exit_statuses() -> None:
    assert requests.parse_exit_status(b'{"code":3,"timed_out":false}') == ExitStatus(3, None, False)
    assert requests.parse_exit_status(b'{"signal":9,"timed_out":true}') == ExitStatus(None, 9, True)
    assert not ExitStatus(0, None, True).success
    assert str(ExitStatus(None, 9, True)) == "killed by signal 9 after its time limit"
    for bad in (b'{"code":256,"timed_out":false}', b'{"signal":0,"timed_out":false}', b'{"code":0}'):
        with pytest.raises(ProtocolViolation):
            requests.parse_exit_status(bad)


EXEC = {"env": {}, "user": None, "cwd": None, "pty": None, "stdin": False, "time_limit": None, "kill_after": 1.0}


@pytest.mark.parametrize(
    ("argv", "change", "complaint"),
    [
        ([], {}, "at least one word"),
        (["a\0b"], {}, "NUL"),
        (["a" * 200_000], {}, "write it to a file"),
        (["a"], {"env": {"A=B": "c"}}, "environment variable"),
        (["a"], {"env": {"": "c"}}, "environment variable"),
        (["a"], {"env": {"A": "\0"}}, "NUL"),
        (["a"], {"pty": (0, 80)}, "0 rows"),
        (["a"], {"time_limit": -1.0}, "time limit"),
        (["a"], {"kill_after": float("nan")}, "time limit"),
    ],
)
def test_what_could_not_be_executed_is_not_sent(argv: list[str], change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        requests.exec_request(argv, **(EXEC | change))  # type: ignore[arg-type]


def test_other_bad_requests_are_not_sent() -> None:
    with pytest.raises(ValueError, match="absolute"):
        requests.write_file_request("relative", 0o644, None, True)
    with pytest.raises(ValueError, match="mode"):
        requests.write_file_request("/x", 0o200000, None, True)
    with pytest.raises(ValueError, match="limit"):
        requests.read_file_request("/x", -1)
    with pytest.raises(ValueError, match="signals"):
        requests.signal_control("SEGV")


def test_a_guest_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(GuestError("ENOENT", "no such file")))
    assert (error.errno, error.message) == ("ENOENT", "no such file")
