"""A worker's control groups: made for each machine, gone with it, and a dead worker's swept by the next.

`leveret-<process>/` stands below the group that the worker was started in, and is locked (flock) for as long as it
lives. Machines have a group each in it; with version 2 so has the worker, since a group there has either processes or
groups (cgroups(7), "no internal processes").
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from leveret_worker.qemu.cgroup import NEEDED, Hierarchy, Limits, hierarchies, settings, usable

_PREFIX = "leveret-"
_WORKER = "worker"
_REMOVAL_LIMIT = 5.0
"""Seconds the kernel has to take down what was killed in a group."""
_REMOVAL_PAUSE = 0.002


class NoGroupsError(Exception):
    """This host gives the worker no groups to bound machines with; the text says why and what to do."""


@dataclass(frozen=True)
class _Base:
    """The worker's directory in one hierarchy."""

    hierarchy: Hierarchy
    directory: Path
    lock: int


class Groups:
    """The groups of one worker. Made by `Groups.open`."""

    def __init__(self, bases: tuple[_Base, ...]) -> None:
        self._bases = bases

    @classmethod
    def open(cls, process: Path = Path("/proc/self")) -> "Groups":
        """Sweep what dead workers left, and make this worker's own place.

        `process`: its directory in proc(5), for tests. Raises NoGroupsError.
        """
        found = hierarchies((process / "mountinfo").read_text(), (process / "cgroup").read_text())
        chosen = usable(found, _handed_on(found))
        missing = [name for name in NEEDED if not _covers(chosen, name)]
        if missing:
            lack = ", ".join(missing)
            raise NoGroupsError(f"no control group for {lack} to be had: start the worker as a service, Delegate=yes")
        bases: list[_Base] = []
        for hierarchy in chosen:
            try:
                bases.append(_open_base(hierarchy))
            except OSError as error:
                if not any(_covers((hierarchy,), name) for name in NEEDED):
                    continue
                cls(tuple(bases)).close()
                raise NoGroupsError(
                    f"{error.filename}: {error.strerror}: start the worker as a service with Delegate=yes, or as root"
                ) from error
        return cls(tuple(bases))

    @contextlib.asynccontextmanager
    async def group(self, name: str, limits: Limits) -> AsyncIterator[tuple[Path, ...]]:
        """A group for one machine. What is in it at the end is killed.

        Gives the files that a process joins it by, writing its number into each. Raises OSError.
        """
        directories = [base.directory / name for base in self._bases]
        try:
            for base, directory in zip(self._bases, directories, strict=True):
                directory.mkdir()
                for setting in settings(base.hierarchy, limits):
                    file = directory / setting.file
                    if setting.needed or file.exists():
                        _write(file, setting.value)
            yield tuple(directory / "cgroup.procs" for directory in directories)
        finally:
            await asyncio.to_thread(_remove, directories)

    def close(self) -> None:
        """Remove the worker's own place. With version 2 the worker itself stands in it: it goes with its service."""
        for base in self._bases:
            with contextlib.suppress(OSError):
                base.directory.rmdir()
            os.close(base.lock)


def _covers(chosen: tuple[Hierarchy, ...], controller: str) -> bool:
    return any(one.version == 2 or controller in one.controllers for one in chosen)


def _handed_on(found: tuple[Hierarchy, ...]) -> set[str]:
    """The controllers that our group of version 2 may hand on."""
    for hierarchy in found:
        if hierarchy.version == 2:
            with contextlib.suppress(OSError):
                return set((_top(hierarchy.group) / "cgroup.controllers").read_text().split())
    return set()


def _top(group: Path) -> Path:
    """The group that a worker in `group` was started in: one that has groups already stands in its own place in it."""
    if group.name == _WORKER and group.parent.name.startswith(_PREFIX):
        return group.parent.parent
    return group


def _open_base(hierarchy: Hierarchy) -> _Base:
    top = _top(hierarchy.group)
    for left in top.glob(f"{_PREFIX}*/"):
        _sweep(left)
    directory = top / f"{_PREFIX}{os.getpid()}"
    lock = _locked(directory)
    if hierarchy.version == 2:
        try:
            _hand_on(top, directory)
        except BaseException:
            os.close(lock)
            raise
    return _Base(hierarchy, directory, lock)


def _locked(directory: Path) -> int:
    """Make `directory` and lock it. Until it is locked another worker takes it for a dead one's, and sweeps it."""
    while True:
        directory.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_SH)
            if _is(lock, directory):
                return lock
            os.close(lock)


def _is(descriptor: int, directory: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), directory.stat())
    except FileNotFoundError:
        return False


def _hand_on(top: Path, directory: Path) -> None:
    """Move this process out of the way (version 2), and let machines' groups have controllers."""
    own = directory / _WORKER
    own.mkdir(exist_ok=True)
    _write(own / "cgroup.procs", str(os.getpid()))
    there = set((top / "cgroup.controllers").read_text().split())
    wanted = " ".join(f"+{name}" for name in (*NEEDED, "io") if name in there)
    _write(top / "cgroup.subtree_control", wanted)
    _write(directory / "cgroup.subtree_control", wanted)


def _sweep(left: Path) -> None:
    """Kill and remove what a dead worker left; one that lives holds its lock."""
    try:
        lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove([*left.glob("*/"), left])
    except (BlockingIOError, FileNotFoundError):
        pass
    finally:
        os.close(lock)


def _remove(directories: list[Path]) -> None:
    """Kill what is in these groups and remove them. The kernel tells of a group's last process by no event that both
    versions have, so it is asked again and again."""
    give_up = time.monotonic() + _REMOVAL_LIMIT
    for directory in directories:
        while directory.exists():
            for number in _processes(directory):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            try:
                directory.rmdir()
            except FileNotFoundError:
                break
            except OSError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(_REMOVAL_PAUSE)


def _processes(directory: Path) -> list[int]:
    try:
        return [int(line) for line in (directory / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def _write(file: Path, value: str) -> None:
    with file.open("w") as opened:
        opened.write(value)
