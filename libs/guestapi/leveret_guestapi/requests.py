"""What travels in REQUEST, CONTROL and RESULT payloads: built here for the agent, and parsed here with no trust in it.

Payloads are JSON objects in ASCII. A guest's answer that is not what the contract says is a ProtocolViolation; texts
from the guest are cut to a bounded length and cleaned of control characters before anybody prints them.
"""

from __future__ import annotations

import json
import math
import signal
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leveret_guestapi.agent_identity import MAX_HOST_NAME, is_host_name, is_machine_id
from leveret_guestapi.codec import GuestApiError, ProtocolViolation

# Linux takes no longer single argument (MAX_ARG_STRLEN, 32 pages).
MAX_ARGUMENT = 128 * 1024 - 1
MAX_TEXT = 1000
MAX_RANDOM = 512
SIGNALS = frozenset(("HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "CONT", "STOP", "WINCH"))


class GuestError(GuestApiError):
    """The guest refused or failed a request. `errno` is a name such as ENOENT, `message` the guest's own words."""

    def __init__(self, errno: str, message: str) -> None:
        super().__init__(f"{message} ({errno})")
        self.errno = errno
        self.message = message

    def __reduce__(self) -> tuple[type[GuestError], tuple[str, str]]:
        return type(self), (self.errno, self.message)


@dataclass(frozen=True)
class Hello:
    """Who answers. All of it is the guest's own claim."""

    agent: str
    pid: int
    python: str
    system: str
    release: str
    machine: str
    boot_id: str
    uptime: float  # seconds


@dataclass(frozen=True)
class ExitStatus:
    """How a command ended: by itself with `code` (0 to 255), or killed by `signal` (a number). One of them is None."""

    code: int | None
    signal: int | None
    timed_out: bool  # its time limit had passed

    @property
    def success(self) -> bool:
        return self.code == 0 and not self.timed_out

    def __str__(self) -> str:
        if self.code is not None:
            how = f"exit status {self.code}"
        else:
            how = f"killed by signal {self.signal}"
        return how + (" after its time limit" if self.timed_out else "")


@dataclass(frozen=True)
class FileStatus:
    kind: str  # "file", "directory", "link" or "other"
    size: int
    mode: int  # permission bits
    uid: int
    gid: int
    mtime: float  # seconds since 1970


def encode(request: Mapping[str, object]) -> bytes:
    return json.dumps(request, separators=(",", ":"), allow_nan=False).encode("ascii")


def exec_request(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    user: str | None,
    cwd: str | None,
    pty: tuple[int, int] | None,
    stdin: bool,
    time_limit: float | None,
    kill_after: float,
) -> bytes:
    """ValueError names what no system could execute: an empty command, NUL bytes, a too long argument, a bad limit."""
    if not argv:
        raise ValueError("a command needs at least one word")
    for name in env:
        if not name or "=" in name:
            raise ValueError(f"{name!r} can't be the name of an environment variable")
    texts = [*argv, *(f"{name}={value}" for name, value in env.items()), user or "", cwd or ""]
    for text in texts:
        if "\0" in text:
            raise ValueError(f"a NUL byte in {text[:40]!r}")
        if len(text.encode("utf-8", "surrogateescape")) > MAX_ARGUMENT:
            raise ValueError(
                f"{text[:40]!r}… is longer than the {MAX_ARGUMENT} bytes Linux allows; write it to a file first"
            )
    for limit in (time_limit, kill_after):
        if limit is not None and not (math.isfinite(limit) and limit >= 0):
            raise ValueError(f"a time limit of {limit} s")
    return encode(
        {
            "op": "exec",
            "argv": list(argv),
            "env": dict(env),
            "user": user,
            "cwd": cwd,
            "pty": check_size(pty) if pty else None,
            "stdin": stdin,
            "time_limit": time_limit,
            "kill_after": kill_after,
        }
    )


def check_size(size: tuple[int, int]) -> list[int]:
    """(rows, columns) of a terminal, each 1 to 65535."""
    if not all(1 <= number <= 65535 for number in size):
        raise ValueError(f"a terminal of {size[0]} rows and {size[1]} columns")
    return list(size)


def signal_control(name: str) -> bytes:
    if name not in SIGNALS:
        raise ValueError(f"{name!r} is not one of the signals {', '.join(sorted(SIGNALS))}")
    return encode({"signal": name})


def resize_control(rows: int, columns: int) -> bytes:
    return encode({"resize": check_size((rows, columns))})


def check_path(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise ValueError(f"{path!r} is not an absolute path")
    return path


def write_file_request(path: str, mode: int, user: str | None, parents: bool) -> bytes:
    if not 0 <= mode <= 0o7777:
        raise ValueError(f"{mode:o} is not a file mode")
    return encode({"op": "write-file", "path": check_path(path), "mode": mode, "user": user, "parents": parents})


def read_file_request(path: str, limit: int) -> bytes:
    if limit < 0:
        raise ValueError(f"a limit of {limit} bytes")
    return encode({"op": "read-file", "path": check_path(path), "limit": limit})


def sync_clock_request(seconds: float, random: bytes) -> bytes:
    """`seconds` since 1970; `random`: 32 to 512 bytes for the kernel's generator."""
    if not 32 <= len(random) <= MAX_RANDOM:
        raise ValueError(f"{len(random)} random bytes; 32 to {MAX_RANDOM} are allowed")
    return encode({"op": "sync-clock", "time": seconds, "random": random.hex()})


def set_identity_request(host_name: str, machine_id: str) -> bytes:
    if not is_host_name(host_name):
        raise ValueError(
            f"{host_name!r} is no host name: at most {MAX_HOST_NAME} letters, digits and inner hyphens, parted by dots"
        )
    if not is_machine_id(machine_id):
        raise ValueError(f"{machine_id!r} is not a machine id: 32 lower-case hexadecimal digits, not all zero")
    return encode({"op": "set-identity", "host_name": host_name, "machine_id": machine_id})


# --- Answers ---


def parse_error(payload: bytes) -> GuestError:
    fields = _Fields("ERROR", payload)
    return GuestError(fields.text("errno"), fields.text("message"))


def parse_hello(payload: bytes) -> Hello:
    fields = _Fields("hello", payload)
    return Hello(
        agent=fields.text("agent"),
        pid=fields.integer("pid", 1, 2**31),
        python=fields.text("python"),
        system=fields.text("system"),
        release=fields.text("release"),
        machine=fields.text("machine"),
        boot_id=fields.text("boot_id"),
        uptime=fields.number("uptime"),
    )


def parse_exit_status(payload: bytes) -> ExitStatus:
    fields = _Fields("exit status", payload)
    timed_out = fields.flag("timed_out")
    if "signal" in fields.values:
        return ExitStatus(None, fields.integer("signal", 1, signal.NSIG), timed_out)
    return ExitStatus(fields.integer("code", 0, 255), None, timed_out)


def parse_file_status(payload: bytes) -> FileStatus:
    fields = _Fields("file status", payload)
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
    return FileStatus(
        kind=kinds.get(fields.integer("kind", 0, 2**16), "other"),
        size=fields.integer("size", 0, 2**63),
        mode=fields.integer("mode", 0, 0o7777),
        uid=fields.integer("uid", 0, 2**32),
        gid=fields.integer("gid", 0, 2**32),
        mtime=fields.number("mtime"),
    )


def parse_size(payload: bytes) -> int:
    return _Fields("result", payload).integer("size", 0, 2**63)


def parse_flag(payload: bytes, name: str) -> bool:
    return _Fields("result", payload).flag(name)


def printable(text: str) -> str:
    """A text from the guest, fit for a log line: at most 1,000 characters, none of them a control character."""
    return "".join(letter if letter.isprintable() else "�" for letter in text[:MAX_TEXT])


class _Fields:
    """A JSON object from the guest, read field by field."""

    def __init__(self, what: str, payload: bytes) -> None:
        self.what = what
        try:
            values = json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise ProtocolViolation(f"the guest's {what} is not JSON: {printable(str(error))}") from None
        if not isinstance(values, dict):
            raise ProtocolViolation(f"the guest's {what} is not a JSON object")
        self.values: dict[str, object] = values

    def _bad(self, name: str) -> ProtocolViolation:
        return ProtocolViolation(f"the guest's {self.what} has a bad or missing {name!r}")

    def text(self, name: str) -> str:
        value = self.values.get(name)
        if not isinstance(value, str):
            raise self._bad(name)
        return printable(value)

    def integer(self, name: str, low: int, high: int) -> int:
        value = self.values.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self._bad(name)
        return value

    def number(self, name: str) -> float:
        value = self.values.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self._bad(name)
        try:
            number = float(value)
        except OverflowError:
            raise self._bad(name) from None
        if not math.isfinite(number):
            raise self._bad(name)
        return number

    def flag(self, name: str) -> bool:
        value = self.values.get(name)
        if not isinstance(value, bool):
            raise self._bad(name)
        return value
