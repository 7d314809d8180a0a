"""The machines of a worker, seen from outside: which build each runs, and what can be done to it."""

import ctypes
import errno
import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import descendants

#: pidfd_getfd(2): Linux 5.6 and newer, the same number on every architecture.
_PIDFD_GETFD = 438
_GONE = (errno.EBADF, errno.ESRCH)


@dataclass(frozen=True)
class Machine:
    """A running QEMU, and the job whose build it runs."""

    pid: int
    job: int
    attempt: int

    def signal(self, number: signal.Signals) -> bool:
        """Send QEMU a signal; whether it was still there."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


def machines(worker: int, spool: Path) -> list[Machine]:
    """The machines that run builds of the worker process `worker`, which has that spool."""
    found = []
    builds = {name[:13]: facts for name, facts in _grants(spool)}
    for pid in descendants(worker)[1:]:
        build = _build(pid, spool / "run")
        if build in builds:
            found.append(Machine(pid, *builds[build]))
    return found


def cut_channels(worker: int) -> int:
    """Cut every connection of the process `worker` with a guest's agent, as if the kernel did; give their number."""
    cut = 0
    for descriptor in os.listdir(f"/proc/{worker}/fd"):
        with _borrowed(worker, int(descriptor)) as borrowed:
            if borrowed is not None and _leads_to_a_guest(borrowed):
                borrowed.shutdown(socket.SHUT_RDWR)
                cut += 1
    return cut


def _grants(spool: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Each spooled grant's name with its job and attempt."""
    for written in (spool / "grants").glob("*/grant.json"):
        try:
            grant = json.loads(written.read_bytes())
        except FileNotFoundError:  # settled just now
            continue
        yield written.parent.name, (grant["facts"]["job"], grant["attempt"])


def _build(pid: int, run: Path) -> str | None:
    """The folder in `run` that an emulator's disk lies in; None for any other process."""
    try:
        if not Path(f"/proc/{pid}/comm").read_text().startswith("qemu-system"):
            return None
        opened = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return None
    for path in map(Path, opened):
        if path.is_relative_to(run):
            return path.relative_to(run).parts[0]
    return None


@contextmanager
def _borrowed(pid: int, descriptor: int) -> Iterator[socket.socket | None]:
    """The socket that is open in another process as `descriptor`; None where it is none."""
    process = os.pidfd_open(pid)
    try:
        number = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, process, descriptor, 0)
        if number < 0 and (code := ctypes.get_errno()) not in _GONE:
            raise OSError(code, os.strerror(code))
    finally:
        os.close(process)
    if number < 0:
        yield None
        return
    if not os.readlink(f"/proc/self/fd/{number}").startswith("socket:"):
        os.close(number)
        yield None
        return
    with socket.socket(fileno=number) as borrowed:
        yield borrowed


def _leads_to_a_guest(connection: socket.socket) -> bool:
    if connection.family != socket.AF_UNIX:
        return False
    try:
        return str(connection.getpeername()).endswith("guest.socket")
    except OSError:
        return False
