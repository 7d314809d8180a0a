import json
import os
import socket
import sys
from pathlib import Path

import pytest
import structlog

from leveret_runtime import journal, logging
from leveret_runtime.journal import JournalLogger, entry


def fields(datagram: bytes) -> dict[str, str]:
    """Read the native protocol as the journal does."""
    found = {}
    while datagram:
        head, _, rest = datagram.partition(b"\n")
        name, equals, value = head.partition(b"=")
        if equals:
            datagram = rest
        else:
            size = int.from_bytes(rest[:8], "little")
            value, datagram = rest[8 : 8 + size], rest[8 + size + 1 :]
        found[name.decode()] = value.decode()
    return found


def test_what_an_event_knows_becomes_fields() -> None:
    facts = {
        "event": "granted", "level": "warning", "service": "worker", "timestamp": "now",
        "job": 31, "owner": "~ada", "reason": None,
    }  # fmt: skip
    assert fields(entry(facts)) == {
        "MESSAGE": "granted (job: 31, owner: ~ada)",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "leveret-worker",
        "LEVERET_JOB": "31",
        "LEVERET_OWNER": "~ada",
    }


def test_lines_in_a_value_forge_no_field() -> None:
    got = fields(
        entry({"event": "said", "exception": "Traceback\nPRIORITY=0", "text": "a\n_PID=1\nMESSAGE=b", "k=v": 1})
    )
    assert got["LEVERET_TEXT"] == "a\n_PID=1\nMESSAGE=b"
    assert got["MESSAGE"].endswith("\nTraceback\nPRIORITY=0")
    assert set(got) == {"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "LEVERET_TEXT"}


def test_what_the_journal_does_not_take_goes_to_standard_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(journal, "SOCKET", str(tmp_path / "gone"))
    JournalLogger().error(entry({"event": "lost"}))
    assert "MESSAGE=lost" in capsys.readouterr().err


def test_a_service_under_systemd_logs_to_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error is the stream that JOURNAL_STREAM names."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver, (tmp_path / "stream").open("w") as stream:
        receiver.settimeout(5)
        receiver.bind(str(tmp_path / "journal"))
        monkeypatch.setattr(journal, "SOCKET", str(tmp_path / "journal"))
        monkeypatch.setattr(logging.logging, "basicConfig", lambda **_: None)
        monkeypatch.setattr(sys, "stderr", stream)
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        logging.configure("mill")
        try:
            structlog.get_logger("here").info("ground", job=7)
            assert fields(receiver.recv(4096))["LEVERET_JOB"] == "7"
            monkeypatch.setenv("JOURNAL_STREAM", "1:1")
            logging.configure("mill")
            structlog.get_logger("there").info("ground", job=8)
        finally:
            structlog.reset_defaults()
            structlog.contextvars.clear_contextvars()
    assert json.loads((tmp_path / "stream").read_text())["job"] == 8
