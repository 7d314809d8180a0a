"""One stack, one folder: two servers on the same data would ruin it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FolderInUseError(RuntimeError):
    """Another running server has its data in this folder."""


@contextmanager
def own_folder(path: Path) -> Iterator[int]:
    """Makes the folder if it is missing, keeps others out of it, and gives a descriptor of it.

    Raises FolderInUseError. The kernel frees the folder when we die.
    """
    path.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUseError(
                f"{path} is in use by another running server: end that, or use another folder"
            ) from None
        yield descriptor
    finally:
        os.close(descriptor)
