"""Log entries with fields for systemd's journal, in its native protocol: `journalctl LEVERET_JOB=31` finds a job's."""

import os
import socket
import sys
from collections.abc import Mapping
from typing import Any

SOCKET = "/run/systemd/journal/socket"
#: Seconds that an entry may wait for room.
LIMIT = 0.5

#: syslog(3)'s numbers.
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
#: In the entry already, under a name that the journal knows.
_KNOWN = ("event", "level", "service", "timestamp", "exception")


def is_ours() -> bool:
    """Whether standard error leads to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        there = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{there.st_dev}:{there.st_ino}"


def entry(facts: Mapping[str, Any]) -> bytes:
    """Give the datagram for what structlog knows of an event. Pure.

    Each key becomes a field `LEVERET_<KEY>`; the message has them in words, too.
    """
    own = {key: value for key, value in facts.items() if key not in _KNOWN and value is not None}
    message = str(facts.get("event", ""))
    if own:
        message += f" ({', '.join(f'{key}: {value}' for key, value in own.items())})"
    if "exception" in facts:
        message += f"\n{facts['exception']}"
    fields = {
        "MESSAGE": message,
        "PRIORITY": _PRIORITIES.get(str(facts.get("level")), 6),
        "SYSLOG_IDENTIFIER": f"leveret-{facts.get('service', 'service')}",
    }
    fields |= {
        f"LEVERET_{key.upper()}"[:64]: value for key, value in own.items() if key.isidentifier() and key.isascii()
    }
    return b"".join(_field(name, str(value)) for name, value in fields.items())


def _field(name: str, value: str) -> bytes:
    data = value.encode(errors="replace")
    if b"\n" in data:
        return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
    return name.encode() + b"=" + data + b"\n"


class JournalLogger:
    """structlog's last step: sends entries. What the journal doesn't take goes to standard error, whole."""

    def msg(self, datagram: bytes) -> None:
        """Send one entry."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(LIMIT)
            try:
                channel.sendto(datagram, SOCKET)
            except OSError:  # too long for a datagram, or the journal is being restarted
                sys.stderr.write(datagram.decode(errors="replace"))
                sys.stderr.flush()

    debug = info = warning = error = critical = exception = msg
