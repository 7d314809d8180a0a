"""Finding and removing what an image store holds for nobody: safe while images are built and machines run."""

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from leveret_worker.images.host import remove_tree
from leveret_worker.images.store import ImageStore

INITRD_AGE = 24 * 3600.0
"""Seconds since a worker last asked for an initrd until it goes: it takes no time to make it again."""
TEMPORARY_AGE = 3600.0
"""Seconds after which a file that was being written belongs to a process that was killed."""


@dataclass(frozen=True)
class Garbage:
    """Something that was removed, or would be."""

    what: str
    """In words, for people."""
    path: Path
    size: int
    """Bytes."""


def collect_garbage(store: ImageStore, *, dry_run: bool = False) -> Iterator[Garbage]:
    """Remove what nobody needs, giving back each piece once it is gone.

    These are: images that no name stands for and nobody uses; what killed builds left; initrds of former agents or
    images; temporary files.

    Args:
        store: nobody else has to keep away from it.
        dry_run: remove nothing.

    Raises:
        ImageError: it could not be read or removed.
    """
    for garbage in _abandoned_objects(store):
        if not dry_run:
            # The manifest last would leave something that looks whole, should we be killed here.
            (garbage.path / "manifest.json").unlink(missing_ok=True)
            shutil.rmtree(garbage.path)
        yield garbage
    for work in store.abandoned_work():
        garbage = Garbage("left by a build that was killed", work, _size(work))
        if not dry_run:
            remove_tree(work)
        yield garbage
    initrds = store.root / "initrds"
    yield from _old_files("initrd", initrds, "*.cpio", INITRD_AGE, dry_run)
    yield from _old_files("temporary file", initrds, "tmp*", TEMPORARY_AGE, dry_run)
    yield from _old_files("temporary file", store.root / "names", "**/*.new", TEMPORARY_AGE, dry_run)


def _abandoned_objects(store: ImageStore) -> Iterator[Garbage]:
    """Objects no name stands for; nobody can come to use one until the next is asked for."""
    pointed = store.pointed()
    for path in sorted((store.root / "objects").glob("*")):
        if path.name in pointed:
            continue
        with store.alone_with(path.name) as alone:
            # Asked again: it may have been added since, and its builder have let it go.
            if alone and path.name not in store.pointed():
                yield Garbage("image that no name stands for", path, _size(path))


def _old_files(what: str, directory: Path, pattern: str, age: float, dry_run: bool) -> Iterator[Garbage]:
    limit = time.time() - age
    for path in sorted(directory.glob(pattern)):
        try:
            found = path.stat()
        except FileNotFoundError:
            continue
        if found.st_mtime < limit:
            if not dry_run:
                path.unlink(missing_ok=True)
            yield Garbage(what, path, found.st_size)


def _size(directory: Path) -> int:
    """Bytes of disk space below `directory`, as far as we may look."""
    blocks = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            blocks += os.lstat(os.path.join(folder, name)).st_blocks
    return blocks * 512
