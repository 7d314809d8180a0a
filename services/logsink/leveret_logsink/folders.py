"""Small acts on files and folders that `storage.py` is made of. All calls block and raise OSError."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Tries to make a file in a folder that somebody may be removing just now, for it was empty.
_TRIES = 10


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open for reading; a link is not followed."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield file
    finally:
        os.close(file)


def above(path: Path, root: Path) -> list[Path]:
    """Give the folders from the one `path` is in up to `root`."""
    return [folder for folder in path.parents if folder == root or root in folder.parents]


def make(path: Path, news: set[Path]) -> int:
    """Make a file, or open it where it has just been made, for writing; note in `news` folders with a new entry."""
    for _ in range(_TRIES - 1):
        try:
            return _make(path, news)
        except FileNotFoundError:
            continue
    return _make(path, news)


def _make(path: Path, news: set[Path]) -> int:
    folder = path.parent
    news.add(folder)
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
        news.add(folder)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)


def write_all(file: int, offset: int, body: memoryview) -> None:
    """Write all of `body` at `offset`."""
    while body:
        written = os.pwrite(file, body, offset)
        offset, body = offset + written, body[written:]


def sync_folder(path: Path) -> None:
    """Make a folder's entries durable. One that is gone, being empty, needs none."""
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def names(folder: Path) -> list[str]:
    """Give a folder's entries; none where there is no such folder."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def untouched(path: Path, since: float) -> bool:
    """Whether it is there and has not changed since then (seconds of the epoch)."""
    try:
        return path.lstat().st_mtime < since
    except FileNotFoundError:
        return False


def prune(folder: Path, root: Path) -> None:
    """Remove `folder` and those above it, below `root`, that are empty."""
    while folder != root and root in folder.parents:
        try:
            folder.rmdir()
        except FileNotFoundError:
            pass
        except OSError:
            return  # not empty
        folder = folder.parent
