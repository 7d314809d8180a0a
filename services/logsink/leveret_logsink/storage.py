"""Where bytes lie: one file a stream, written by offset. The one place that touches the file system; all calls block.

Layout: `<root>/<job // 1000>/<job>/<attempt>/<worker>/<task>.log` and `…/<worker>/artifacts/<index>`; a sealed log is
compressed to `<task>.log.zst` (seekable.py). Several logsinks may share the root, and one of them may be a predecessor
that was frozen and goes on with what it had begun: what is compressed or removed stays so.
"""

import errno
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from leveret_logsink import folders, seekable
from leveret_logsink.chunks import StreamKey
from leveret_runtime.away import Away, told
from leveret_runtime.failpoints import failpoint

#: Bytes read at once for a digest.
BLOCK = 1024 * 1024
#: Longest file name made from a text; file systems allow 255 bytes.
MAX_NAME = 200
#: Files synced at the same time: those that wait together share a commit of the file system's journal.
SYNCERS = 8

_FULL = (errno.ENOSPC, errno.EDQUOT)


class StorageAway(Away):
    """The storage can't be read or written now (full, gone, read-only): nothing was acked, it comes again."""

    WHAT = "storage"


class StorageFull(StorageAway):
    """There is no room: no blocks, no inodes, or a quota is used up."""


class StorageDamaged(Exception):
    """A file does not hold what was sealed. The text says which."""


class Interrupted(Exception):
    """The caller wanted no more of it; it may be begun again at any time."""


class Digest(NamedTuple):
    """What a stream's stored bytes are: SHA-256 in hexadecimal, and the number of lines (the last may lack its end)."""

    sha256: str
    lines: int


class Storage:
    """Streams in files under `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._syncers = ThreadPoolExecutor(SYNCERS, thread_name_prefix="sync")

    def write(self, pieces: Mapping[StreamKey, Sequence[tuple[int, memoryview]]]) -> None:
        """Write pieces (offset, bytes) of several streams, durable on return.

        Raises:
            StorageAway: not known which pieces were written; write them again.
        """
        opened: list[int] = []
        news: set[Path] = set()
        try:
            with _away():
                for key, parts in pieces.items():
                    file = self._open(key, news)
                    if file is None:
                        continue
                    opened.append(file)
                    for offset, body in parts:
                        folders.write_all(file, offset, body)
                        if offset == 0:  # whoever made the file may have died before its name was durable
                            news.update(folders.above(self.path(key), self._root))
                # one group: nothing is waited for before everything is written, then all waits are one
                self._together(os.fdatasync, opened)
                self._together(folders.sync_folder, news)
        finally:
            for file in opened:
                os.close(file)

    def read(self, key: StreamKey, offset: int, length: int) -> bytes:
        """Read at most `length` bytes at `offset`; fewer where there are no more. Raises StorageAway."""
        plain, packed = self.path(key), self._packed(key)
        with _away():
            # the compressed one first: it is complete, and a plain one beside it is left over. It may come, and the
            # plain one go, between the two looks
            for path, read in ((packed, _read_packed), (plain, _read_plain), (packed, _read_packed)):
                try:
                    with folders.opened(path) as file:
                        return read(file, offset, length)
                except FileNotFoundError:
                    continue
        return b""

    def digest(self, key: StreamKey, length: int) -> Digest:
        """Read back the first `length` bytes and say what they are. Raises StorageAway."""
        found, lines, last = hashlib.sha256(), 0, b"\n"
        for block in _blocks(partial(self.read, key), length, BLOCK):
            found.update(block)
            lines += block.count(b"\n")
            last = block[-1:]
        return Digest(found.hexdigest(), lines + (last != b"\n"))

    def compress(self, key: StreamKey, total: int, sha256: str, stopped: Callable[[], bool]) -> int:
        """Compress a sealed log of `total` bytes; give the bytes saved, 0 where it stays as it is.

        A crash at any line leaves it readable: the compressed file gets its name when it has been read back and proven,
        and only then the plain one goes. Doing it again, or in two processes at once, is harmless.

        Raises:
            StorageAway: try again later.
            StorageDamaged: what is stored is not what was sealed; nothing was changed.
            Interrupted: `stopped`, which is asked now and then, said so.
        """
        plain, packed = self.path(key), self._packed(key)
        with _away():
            try:
                done = _proven(packed, total, sha256, stopped)
            except (FileNotFoundError, seekable.Damaged):
                done = False
            if not done:
                for name in self._parts(packed):
                    packed.with_name(name).unlink(missing_ok=True)
                part = packed.with_name(f"{packed.name}.{secrets.token_hex(8)}.part")
                try:
                    if not _pack(plain, part, total, sha256, stopped):
                        return 0
                    failpoint("logsink.compress.before-rename")
                    part.rename(packed)
                finally:
                    part.unlink(missing_ok=True)
                folders.sync_folder(packed.parent)
            failpoint("logsink.compress.before-unlink")
            plain.unlink(missing_ok=True)
            return max(0, total - packed.stat().st_size)

    def remove(self, keys: Iterable[StreamKey]) -> None:
        """Remove streams, and folders that are empty then. Raises StorageAway: some may be removed; do it again."""
        with _away():
            for key in keys:
                plain, packed = self.path(key), self._packed(key)
                # the plain one first: without the other it would be taken for the stream
                for path in (plain, packed, *map(packed.with_name, self._parts(packed))):
                    path.unlink(missing_ok=True)
                folders.prune(plain.parent, self._root)

    def next_shelf(self, after: int) -> int | None:
        """Give the next number above `after` of those shelves that there are. A shelf holds jobs of one thousand."""
        with _away():
            numbers = (int(name) for name in folders.names(self._root) if name.isascii() and name.isdigit())
            return min((number for number in numbers if number > after), default=None)

    def remove_leftovers(self, shelf: int, known: Collection[StreamKey], age: float) -> int:
        """Remove files of a shelf that no stream of `known` needs and that have not changed for `age` seconds.

        Gives how many. Raises StorageAway.
        """
        needed: set[str] = set()
        for key in known:
            packed = self._packed(key)
            needed.add(str(packed if packed.exists() else self.path(key)))
        before, count = time.time() - age, 0
        with _away():
            for folder, _, files in os.walk(self._root / str(shelf), topdown=False):
                old = [
                    path
                    for path in (Path(folder, name) for name in files)
                    if str(path) not in needed and folders.untouched(path, before)
                ]
                for path in old:
                    path.unlink(missing_ok=True)
                count += len(old)
                if old or (not files and folders.untouched(Path(folder), before)):
                    folders.prune(Path(folder), self._root)
        return count

    def free(self) -> int:
        """Give the bytes that may still be written. Raises StorageAway."""
        with _away():
            found = os.statvfs(self._root if self._root.exists() else self._root.parent)
            return found.f_bavail * found.f_frsize

    def try_room(self, size: int) -> None:
        """Take `size` bytes for a moment, in a file of its own: quotas and inodes show in no figure.

        Raises:
            StorageAway: that is not possible now.
        """
        path = self._root / f".room-{secrets.token_hex(8)}"
        with _away():
            file = folders.make(path, set())
            try:
                os.posix_fallocate(file, 0, size)
                os.fdatasync(file)
            finally:
                os.close(file)
                path.unlink(missing_ok=True)

    def path(self, key: StreamKey) -> Path:
        """Give a stream's file. No text from outside becomes part of it unescaped."""
        folder = self._root / str(key.job // 1000) / str(key.job) / str(key.attempt) / file_name(key.worker)
        if key.kind == "artifact":
            return folder / "artifacts" / str(int(key.label))
        return folder / f"{file_name(key.label)}.log"

    def _packed(self, key: StreamKey) -> Path:
        plain = self.path(key)
        return plain.with_name(plain.name + ".zst")

    def _parts(self, packed: Path) -> list[str]:
        """Give the names of files that were to become `packed`, left by a crash or being written just now."""
        head = packed.name + "."
        return [name for name in folders.names(packed.parent) if name.startswith(head) and name.endswith(".part")]

    def _open(self, key: StreamKey, news: set[Path]) -> int | None:
        """Open a stream for writing; None where it is compressed, which says that nothing is left to be written."""
        path, packed = self.path(key), self._packed(key)
        try:
            return os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            if packed.exists():
                return None
        file = folders.make(path, news)
        if packed.exists():  # another logsink was at it between the two looks
            os.close(file)
            path.unlink(missing_ok=True)
            return None
        return file

    def _together(self, sync: Callable[..., None], what: Collection[object]) -> None:
        """Sync them all at the same time. Returns, or raises, when none of them is under way any more."""
        waits = [self._syncers.submit(sync, one) for one in what]
        wait(waits)
        for one in waits:
            one.result()


def file_name(text: str) -> str:
    """Give `text` as a file name: no dots, no slashes, at most MAX_NAME bytes, a different one for every text."""
    name = quote(text, safe="@").replace(".", "%2E").replace("~", "%7E")
    if len(name) <= MAX_NAME:
        return name
    return f"{name[:100]}~{hashlib.sha256(text.encode()).hexdigest()}"


@contextmanager
def _away() -> Iterator[None]:
    try:
        yield
    except (OSError, seekable.Damaged) as error:
        full = isinstance(error, OSError) and error.errno in _FULL
        raise (StorageFull if full else StorageAway)(told("storage", error)) from error


def _read_plain(file: int, offset: int, length: int) -> bytes:
    return os.pread(file, length, offset)


def _read_packed(file: int, offset: int, length: int) -> bytes:
    return _seekable(file).read(offset, length)


def _seekable(file: int) -> seekable.Seekable:
    return seekable.Seekable(partial(os.pread, file), os.fstat(file).st_size)


def _blocks(read: Callable[[int, int], bytes], total: int, most: int) -> Iterator[bytes]:
    """Give the first `total` bytes that `read` (offset, length) gives, at most `most` at a time."""
    offset = 0
    while offset < total:
        block = read(offset, min(most, total - offset))
        if not block:
            return
        yield block
        offset += len(block)


def _proven(packed: Path, total: int, sha256: str, stopped: Callable[[], bool]) -> bool:
    """Whether a compressed file gives back `total` bytes with that SHA-256, and no more."""
    found = hashlib.sha256()
    with folders.opened(packed) as file:
        content = _seekable(file)
        for block in _blocks(content.read, total, seekable.FRAME):
            _go_on(stopped)
            found.update(block)
        return content.size == total and found.hexdigest() == sha256


def _pack(plain: Path, part: Path, total: int, sha256: str, stopped: Callable[[], bool]) -> bool:
    """Compress `plain` to `part`, durable and proven; say whether that saves anything."""
    with folders.opened(plain) as source, part.open("xb", buffering=0) as target:
        size = 0
        for piece in seekable.compress(_blocks(partial(_read_plain, source), total, seekable.FRAME)):
            _go_on(stopped)
            folders.write_all(target.fileno(), size, memoryview(piece))
            size += len(piece)
        os.fdatasync(target.fileno())
    if not _proven(part, total, sha256, stopped):
        raise StorageDamaged(f"{plain}: its SHA-256 is not the one it was sealed with")
    return size < total


def _go_on(stopped: Callable[[], bool]) -> None:
    if stopped():
        raise Interrupted
