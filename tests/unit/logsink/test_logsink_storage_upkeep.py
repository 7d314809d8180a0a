"""Files of streams are synced in groups, removed with nothing left, and what belongs to nothing is found."""

import os
from pathlib import Path
from typing import Any

import pytest

from leveret_logsink.chunks import StreamKey
from leveret_logsink.storage import Storage, StorageAway, StorageFull

LOG = StreamKey("log", 12345, 2, "w", "build")
DAY = 86_400.0


class Calls:
    """Records what is done to the file system, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        for name in ("pwrite", "fdatasync", "fsync"):
            monkeypatch.setattr(os, name, self._recorded(name, getattr(os, name)))

    def _recorded(self, name: str, call: Any) -> Any:
        def recorded(*args: Any) -> Any:
            self.done.append(name)
            return call(*args)

        return recorded


def test_many_small_logs_are_synced_in_one_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is written before anything is waited for; each file, and each folder with a new entry, once."""
    storage, calls = Storage(tmp_path), Calls(monkeypatch)
    keys = [LOG._replace(job=job, label=f"task{task}") for job in range(1, 21) for task in range(5)]
    pieces = [(offset, memoryview(b"line\n")) for offset in (0, 5, 10)]
    storage.write(dict.fromkeys(keys, pieces))
    writes, syncs = calls.done[:300], calls.done[300:]
    assert set(writes) == {"pwrite"}
    assert syncs.count("fdatasync") == 100
    # the root and the shelf, and three folders for each job
    assert syncs[100:] == ["fsync"] * (2 + 20 * 3)

    calls.done.clear()
    storage.write({key: [(15, memoryview(b"more\n"))] for key in keys})
    assert calls.done == ["pwrite"] * 100 + ["fdatasync"] * 100


def test_a_first_write_that_failed_is_durable_when_it_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is there already, but not for sure its name."""
    storage = Storage(tmp_path)
    with monkeypatch.context() as failing:
        failing.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(StorageFull):
            storage.write({LOG: [(0, memoryview(b"x"))]})
    assert storage.path(LOG).exists()
    calls = Calls(monkeypatch)
    storage.write({LOG: [(0, memoryview(b"x"))]})
    assert calls.done == ["pwrite", "fdatasync", *["fsync"] * 5]


def test_a_sync_that_fails_fails_the_group_once_all_are_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, syncing, sync = Storage(tmp_path), [0], os.fdatasync

    def failing(file: int) -> None:
        syncing[0] += 1
        number = syncing[0]
        try:
            sync(file)
            if number == 1:
                raise OSError(28, "No space left on device")
        finally:
            syncing[0] -= 1000 if number == 1 else 0
            os.fstat(file)  # it is still open

    monkeypatch.setattr(os, "fdatasync", failing)
    with pytest.raises(StorageFull):
        storage.write({LOG._replace(job=job): [(0, memoryview(b"x"))] for job in range(50)})
    assert syncing[0] == 50 - 1000


def test_removed_streams_leave_nothing(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    keys = [LOG, LOG._replace(label="check"), StreamKey("artifact", 12345, 2, "w", "0"), LOG._replace(attempt=1)]
    other = LOG._replace(job=12346)
    storage.write({key: [(0, memoryview(b"x" * 10_000))] for key in [*keys, other]})
    storage.compress(LOG, 10_000, storage.digest(LOG, 10_000).sha256, lambda: False)
    storage.path(LOG).with_name("build.log.zst.0123.part").write_bytes(b"left by a crash")
    storage.remove(keys)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [storage.path(other)]
    assert not (tmp_path / "12/12345").exists()
    assert storage.read(LOG, 0, 1) == b""
    storage.remove([*keys, other])
    assert list(tmp_path.iterdir()) == []
    storage.remove(keys)


def test_a_folder_removed_under_a_writer_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, mkdir = Storage(tmp_path), Path.mkdir

    def removed(path: Path, *args: Any, **more: Any) -> None:
        mkdir(path, *args, **more)
        monkeypatch.undo()
        path.rmdir()

    monkeypatch.setattr(Path, "mkdir", removed)
    storage.write({LOG: [(0, memoryview(b"x"))]})
    assert storage.read(LOG, 0, 1) == b"x"


def test_leftovers_are_found(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    stranger, young = LOG._replace(job=12000), LOG._replace(label="young")
    packed = LOG._replace(label="packed")
    storage.write({key: [(0, memoryview(b"x" * 10_000))] for key in (LOG, stranger, young, packed)})
    storage.compress(packed, 10_000, storage.digest(packed, 10_000).sha256, lambda: False)
    part = storage.path(LOG).with_name("build.log.zst.0123.part")
    for left in (part, storage.path(packed)):
        left.write_bytes(b"left by a crash")
    empty = tmp_path / "12/12001/1/w"
    empty.mkdir(parents=True)
    for path in tmp_path.rglob("*"):
        if path != storage.path(young):
            os.utime(path, (1, 1))

    assert storage.next_shelf(-1) == 12
    assert storage.next_shelf(12) is None
    assert storage.remove_leftovers(12, {LOG, packed}, DAY) == 3
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == [
        storage.path(LOG), storage.path(packed).with_name("packed.log.zst"), storage.path(young)
    ]  # fmt: skip
    assert not empty.exists()
    assert not (tmp_path / "12/12000").exists()


def test_shelves_are_told_from_what_else_lies_there(tmp_path: Path) -> None:
    for name in ("3", "10", "lost+found", ".room-1", "٣"):
        (tmp_path / name).mkdir()
    storage = Storage(tmp_path)
    assert [storage.next_shelf(after) for after in (-1, 3, 10)] == [3, 10, None]
    assert Storage(tmp_path / "none").next_shelf(-1) is None


def test_room_is_tried_by_taking_it(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "new")
    storage.try_room(100_000)
    assert list((tmp_path / "new").iterdir()) == []
    assert storage.free() > 100_000
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageAway):
        Storage(tmp_path / "file").try_room(1)
