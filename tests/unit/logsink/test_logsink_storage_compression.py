"""A sealed log's file is compressed at no one's peril: crashes, readers, frozen predecessors, damage."""

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leveret_logsink import folders, seekable
from leveret_logsink.chunks import StreamKey
from leveret_logsink.storage import Interrupted, Storage, StorageAway, StorageDamaged

LOG = StreamKey("log", 12345, 2, "w", "build")
#: Three frames, the last one short.
BODY = b"".join(b"line %d of a log\n" % number for number in range(36_000))
SHA256 = hashlib.sha256(BODY).hexdigest()


def never() -> bool:
    return False


def stored(storage: Storage, body: bytes = BODY) -> None:
    storage.write({LOG: [(0, memoryview(body))]})


def compressed(storage: Storage, body: bytes = BODY) -> int:
    return storage.compress(LOG, len(body), hashlib.sha256(body).hexdigest(), never)


def names(storage: Storage) -> list[str]:
    return sorted(os.listdir(storage.path(LOG).parent))


def whole(storage: Storage) -> bytes:
    found = b""
    while block := storage.read(LOG, len(found), 100_000):
        found += block
    return found


def test_what_is_compressed_reads_the_same(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    stored(storage)
    saved = compressed(storage)
    assert names(storage) == ["build.log.zst"]
    assert len(BODY) - saved == (storage.path(LOG).parent / "build.log.zst").stat().st_size
    assert saved > len(BODY) / 2
    assert whole(storage) == BODY
    assert storage.read(LOG, seekable.FRAME - 3, 6) == BODY[seekable.FRAME - 3 : seekable.FRAME + 3]
    assert storage.read(LOG, len(BODY), 1) == b""
    assert storage.digest(LOG, len(BODY)) == (SHA256, 36_000)
    # once more changes nothing
    assert compressed(storage) == saved
    assert names(storage) == ["build.log.zst"]


def test_what_does_not_shrink_stays(tmp_path: Path) -> None:
    storage, noise = Storage(tmp_path), os.urandom(300_000)
    stored(storage, noise)
    assert compressed(storage, noise) == 0
    assert names(storage) == ["build.log"]
    assert whole(storage) == noise


def test_a_file_that_is_not_what_was_sealed_stays(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    for wrong in (BODY[:-1] + b"?", BODY[:-1]):
        stored(storage, wrong)
        with pytest.raises(StorageDamaged):
            compressed(storage)
        assert names(storage) == ["build.log"]
        assert whole(storage) == wrong
        storage.remove([LOG])


def test_it_stops_when_it_is_told_to(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    stored(storage)
    asked = iter([False, False, True])
    with pytest.raises(Interrupted):
        storage.compress(LOG, len(BODY), SHA256, lambda: next(asked))
    assert names(storage) == ["build.log"]


def test_a_reader_in_the_middle_notices_nothing(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    stored(storage)
    found = storage.read(LOG, 0, 300_000)
    compressed(storage)
    found += storage.read(LOG, 300_000, len(BODY))
    assert found == BODY


def test_readers_meanwhile_notice_nothing(tmp_path: Path) -> None:
    """One reads all the time, from just before to just after; each file may go between its two looks."""
    storage = Storage(tmp_path)
    stored(storage)
    begun, done, wrong = threading.Event(), threading.Event(), []

    def read() -> None:
        while not done.is_set():
            if storage.read(LOG, 250_000, 30_000) != BODY[250_000:280_000]:
                wrong.append(names(storage))
            begun.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert begun.wait(10)
        compressed(storage)
    finally:
        done.set()
        reader.join()
    assert not wrong


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_crash_anywhere_leaves_it_readable(tmp_path: Path) -> None:
    """The process is ended at each call that changes the file system, one after the other. Then it is done anew."""
    survived = 0
    for number in range(100):
        storage = Storage(tmp_path / str(number))
        path = storage.path(LOG)
        path.parent.mkdir(parents=True)
        path.write_bytes(BODY)  # not through the storage, which starts threads: they and fork don't mix
        child = os.fork()
        if child == 0:
            status = 1
            try:
                _crash_at(number)
                compressed(storage)
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        assert whole(storage) == BODY, f"after a crash at call {number}"
        compressed(storage)
        assert names(storage) == ["build.log.zst"], f"after a crash at call {number}"
        assert whole(storage) == BODY
        if os.waitstatus_to_exitcode(status) == 0:
            survived = number
            break
    assert survived > 8


def _crash_at(number: int) -> None:
    left = number

    def crashing(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                os._exit(9)
            return call(*args, **more)

        return counted

    for name in ("pwrite", "fdatasync", "fsync", "rename", "unlink"):
        setattr(os, name, crashing(getattr(os, name)))


def test_two_at_once_do_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A predecessor is frozen at each of its steps while another logsink does the whole of it."""
    for step in ("fdatasync", "rename", "fsync", "unlink"):
        first, second = Storage(tmp_path / step), Storage(tmp_path / step)
        stored(first)
        call, calls = getattr(os, step), 0

        def frozen(*args: Any, call: Any = call, step: str = step, other: Storage = second, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 1:
                monkeypatch.undo()
                compressed(other)
            return call(*args, **more)

        monkeypatch.setattr(os, step, frozen)
        try:
            compressed(first)
        except StorageAway:
            pass  # its own file was cleared away: the other one is there
        assert calls, step
        assert whole(first) == BODY
        compressed(first)
        assert names(first) == ["build.log.zst"]


def test_a_late_writer_changes_nothing(tmp_path: Path) -> None:
    """What a frozen predecessor still writes is there already; the file is not made anew."""
    storage = Storage(tmp_path)
    stored(storage)
    compressed(storage)
    storage.write({LOG: [(5, memoryview(b"what it had planned"))]})
    assert names(storage) == ["build.log.zst"]
    assert whole(storage) == BODY


def test_a_writer_frozen_between_its_looks_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It found neither file; when it goes on the log is stored, sealed and compressed."""
    late, quick = Storage(tmp_path), Storage(tmp_path)
    make = folders.make

    def frozen(path: Path, news: set[Path]) -> int:
        monkeypatch.undo()
        stored(quick)
        compressed(quick)
        return make(path, news)

    monkeypatch.setattr(folders, "make", frozen)
    late.write({LOG: [(0, memoryview(b"line"))]})
    assert names(late) == ["build.log.zst"]
    assert whole(late) == BODY


def test_a_plain_file_left_beside_is_not_believed(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    stored(storage)
    compressed(storage)
    storage.path(LOG).write_bytes(b"left by a predecessor that was killed at it")
    assert whole(storage) == BODY
    compressed(storage)
    assert names(storage) == ["build.log.zst"]


def test_a_damaged_compressed_file_is_away(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    stored(storage)
    compressed(storage)
    packed = storage.path(LOG).with_name("build.log.zst")
    packed.write_bytes(packed.read_bytes()[:-30])
    with pytest.raises(StorageAway):
        storage.read(LOG, 0, 10)
