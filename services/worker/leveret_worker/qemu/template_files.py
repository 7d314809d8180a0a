"""A directory of templates on disk: reading, locking and removing, safe against other processes that do the same.

    <key>/{manifest.json,disk.qcow2,memory,state}   a template; the key is the digest of its origin
    work-<random>/                                  one that is being recorded
    gone-<random>/                                  one that is being removed
    recording.lock                                  held by the one recorder of the moment, whichever process it is in

Who has a template loaded holds a shared lock on its directory: nobody removes it then.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, ValidationError

from leveret_worker.qemu.errors import MachineError
from leveret_worker.qemu.origin import Origin
from leveret_worker.qemu.template import RecordedFiles, Template, load

UNUSED_LIMIT = 7 * 24 * 3600.0
"""Seconds after which a template that nobody used is removed."""
_MANIFEST = "manifest.json"


class Manifest(BaseModel):
    """What a template's directory holds, and where that comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    origin: Origin
    files: RecordedFiles


@dataclass(eq=False)
class LoadedTemplate:
    """A template in this process's hands."""

    key: str
    template: Template
    lock: int
    """Descriptor of its directory, which carries the lock."""
    disk: tuple[int, ...]
    """What tells its disk from another, or a changed one."""
    size: int
    """Bytes of memory it takes."""
    users: int = 0
    used: float = field(default_factory=time.monotonic)

    @classmethod
    def from_directory(cls, directory: Path, origin: Origin) -> Self:
        """Load and verify. Raises FileNotFoundError: there is none. MachineError: it is no good."""
        with contextlib.ExitStack() as opened:
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, lock)
            if not locked(lock, fcntl.LOCK_SH) or not same(directory, lock):
                raise FileNotFoundError(f"{directory} is being removed")
            manifest = read_manifest(directory)
            if manifest.origin != origin:
                raise MachineError("its manifest names another origin")
            template = load(directory, manifest.files)
            opened.callback(template.close)
            os.utime(lock)
            size = sum(length for _, length in manifest.files.memory_extents)
            loaded = cls(directory.name, template, lock, _identity(template.disk), size)
            opened.pop_all()
            return loaded

    @property
    def changed(self) -> bool:
        """Whether its disk is not what was verified."""
        try:
            return _identity(self.template.disk) != self.disk
        except OSError:
            return True

    def left(self) -> None:
        """One of its users needs it no more."""
        self.users -= 1
        self.used = time.monotonic()
        os.utime(self.lock)  # for all processes and times

    def close(self) -> None:
        self.template.close()
        os.close(self.lock)


@contextlib.contextmanager
def recording(root: Path) -> Iterator[bool]:
    """Whether nobody else on this host records a template; if so, nobody begins to in this context."""
    with (root / "recording.lock").open("wb") as stream:
        yield locked(stream.fileno(), fcntl.LOCK_EX)


def sweep(root: Path, images: Collection[str], disk_limit: int) -> None:
    """Remove what is of no use, but for what somebody has loaded: see `Templates.sweep`."""
    kept: list[tuple[float, int, Path]] = []
    for path in list(root.glob("*/")):
        if path.name.startswith("gone-"):
            shutil.rmtree(path, ignore_errors=True)
        elif path.name.startswith("work-"):
            with recording(root) as alone:
                if alone:
                    shutil.rmtree(path, ignore_errors=True)
        elif wanted(path, images) or not _remove_unused(path):
            with contextlib.suppress(FileNotFoundError):
                kept.append((path.stat().st_mtime, _size(path), path))
    excess = sum(size for _, size, _ in kept) - disk_limit
    for _, size, path in sorted(kept):
        if excess <= 0:
            break
        if _remove_unused(path):
            excess -= size


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write it beside the files it lists."""
    (directory / _MANIFEST).write_text(manifest.model_dump_json())


def read_manifest(directory: Path) -> Manifest:
    """The manifest of the template in `directory`. Raises MachineError: it can't be read."""
    try:
        return Manifest.model_validate_json((directory / _MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        raise MachineError(f"{directory / _MANIFEST} can't be read") from error


def wanted(directory: Path, images: Collection[str]) -> bool:
    """Whether it is a template of one of `images` (digests) that was used not long ago."""
    try:
        unused = time.time() - directory.stat().st_mtime
        return read_manifest(directory).origin.image in images and unused < UNUSED_LIMIT
    except (OSError, MachineError):
        return False


def locked(descriptor: int, kind: int) -> bool:
    """Lock it, unless that would have to wait; gives whether it is locked."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def same(directory: Path, descriptor: int) -> bool:
    """Whether the path leads to what the descriptor was opened on."""
    try:
        return os.path.samestat(directory.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _identity(file: Path) -> tuple[int, ...]:
    status = file.stat()
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _size(directory: Path) -> int:
    """Bytes on disk of the files in it."""
    return sum(path.stat().st_blocks * 512 for path in directory.iterdir())


def _remove_unused(directory: Path) -> bool:
    """Remove a template unless somebody has it loaded; gives whether it is gone."""
    try:
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        if not locked(lock, fcntl.LOCK_EX):
            return False
        if same(directory, lock):
            remove(directory)
        return True
    finally:
        os.close(lock)


def remove(directory: Path) -> None:
    """Take it away in one step for everybody else."""
    gone = directory.with_name(f"gone-{uuid4().hex}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(directory, gone)
        shutil.rmtree(gone, ignore_errors=True)
