"""Where bytes lie: one file a stream, written by offset. The one place that touches the file system; all calls block.

Layout: `<root>/<job // 1000>/<job>/<attempt>/<worker>/<task>.log` and `…/<worker>/artifacts/<index>`. Several logsinks
may share the root.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from leveret_logsink.chunks import StreamKey
from leveret_runtime.away import Away, told

#: Bytes read at once for a digest.
BLOCK = 1024 * 1024
#: Longest file name made from a text; file systems allow 255 bytes.
MAX_NAME = 200


class StorageAway(Away):
    """The storage can't be read or written now (full, gone, read-only): nothing was acked, it comes again."""


class Digest(NamedTuple):
    """What a stream's stored bytes are: SHA-256 in hexadecimal, and the number of lines (the last may lack its end)."""

    sha256: str
    lines: int


class Storage:
    """Streams in files under `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, pieces: Mapping[StreamKey, Sequence[tuple[int, memoryview]]]) -> None:
        """Write pieces (offset, bytes) of several streams, durable on return.

        Raises:
            StorageAway: not known which pieces were written; write them again.
        """
        opened: list[int] = []
        folders: set[Path] = set()
        try:
            for key, parts in pieces.items():
                file = self._open(self.path(key), folders)
                opened.append(file)
                for offset, body in parts:
                    _write_all(file, offset, body)
            # one group: the disk sorts all writes before the first wait
            for file in opened:
                os.fdatasync(file)
            for folder in folders:
                _sync_folder(folder)
        except OSError as error:
            raise StorageAway(told("storage", error)) from error
        finally:
            for file in opened:
                os.close(file)

    def read(self, key: StreamKey, offset: int, length: int) -> bytes:
        """Read at most `length` bytes at `offset`; fewer where the file is shorter. Raises StorageAway."""
        try:
            with self.path(key).open("rb", buffering=0) as file:
                return os.pread(file.fileno(), length, offset)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise StorageAway(told("storage", error)) from error

    def digest(self, key: StreamKey, length: int) -> Digest:
        """Read back the first `length` bytes and say what they are. Raises StorageAway."""
        found, lines, last = hashlib.sha256(), 0, b"\n"
        for block in self._blocks(key, length):
            found.update(block)
            lines += block.count(b"\n")
            last = block[-1:]
        return Digest(found.hexdigest(), lines + (last != b"\n"))

    def path(self, key: StreamKey) -> Path:
        """Give a stream's file. No text from outside becomes part of it unescaped."""
        folder = self._root / str(key.job // 1000) / str(key.job) / str(key.attempt) / file_name(key.worker)
        if key.kind == "artifact":
            return folder / "artifacts" / str(int(key.label))
        return folder / f"{file_name(key.label)}.log"

    def _blocks(self, key: StreamKey, length: int) -> Iterator[bytes]:
        offset = 0
        while offset < length:
            block = self.read(key, offset, min(BLOCK, length - offset))
            if not block:
                return
            yield block
            offset += len(block)

    def _open(self, path: Path, folders: set[Path]) -> int:
        """Open for writing; note in `folders` those that got a new entry."""
        flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(path, flags)
        except FileNotFoundError:
            folder = path.parent
            folders.add(folder)
            while not folder.is_dir():
                folder = folder.parent
                folders.add(folder)
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            return os.open(path, flags | os.O_CREAT, 0o640)


def file_name(text: str) -> str:
    """Give `text` as a file name: no dots, no slashes, at most MAX_NAME bytes, a different one for every text."""
    name = quote(text, safe="@").replace(".", "%2E").replace("~", "%7E")
    if len(name) <= MAX_NAME:
        return name
    return f"{name[:100]}~{hashlib.sha256(text.encode()).hexdigest()}"


def _write_all(file: int, offset: int, body: memoryview) -> None:
    while body:
        written = os.pwrite(file, body, offset)
        offset, body = offset + written, body[written:]


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
