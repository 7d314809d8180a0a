"""What the agent knows of processes: finding, killing and reaping them, and whom they run as.

A part of the agent (see `agent.py`): Python 3.7, standard library alone.
"""

from __future__ import annotations

import os
import pwd
import time

from leveret_guestapi.light import (
    signal,
)

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
SWEEP_LIMIT = 10.0  # seconds


def processes() -> list[tuple[int, int, int]]:
    """(pid, parent, session) of every live process /proc shows; zombies are left out."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                # The command name is in brackets and may itself hold anything, brackets and spaces included.
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if fields and fields[0] not in (b"Z", b"X"):
            found.append((int(name), int(fields[1]), int(fields[3])))
    return found


def descendants() -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, parent, _ in processes():
        children.setdefault(parent, []).append(pid)
    found = []
    queue = [os.getpid()]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def send_signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def kill_descendants() -> None:
    """Kill all that was ever started from here and wait until it is gone, but not for ever.

    Each round first stops what it sees, so that a process that forks without end can't outrun the killing.
    """
    deadline = time.monotonic() + SWEEP_LIMIT
    while time.monotonic() < deadline:
        for pid in descendants():
            send_signal(pid, signal.SIGSTOP)
        targets = descendants()
        for pid in targets:
            send_signal(pid, signal.SIGKILL)
        reap()
        if not targets:
            return
        time.sleep(0.005)


def reap() -> list[tuple[int, int]]:
    """Collect every child that has ended, own or inherited (process 1 inherits all orphans): (pid, wait status)."""
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if not pid:
            return ended
        ended.append((pid, status))


def prctl(option: int, value: int) -> None:
    """Best effort: without ctypes or the option, orphans of a local agent are merely not adopted."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
    except (ImportError, OSError, AttributeError):
        pass


def account_of(user: str | None) -> pwd.struct_passwd | None:
    """The account to run as or give files to; the agent's own without a user. LookupError for an unknown name."""
    if user is not None:
        return pwd.getpwnam(user)
    try:
        return pwd.getpwuid(os.getuid())
    except KeyError:
        return None
