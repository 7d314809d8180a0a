"""What is recorded comes back whole or not at all."""

import mmap
import os
from pathlib import Path

import pytest

from leveret_worker.qemu import MachineError, RecordedFiles, load
from leveret_worker.qemu.memory import extents, new_memory
from leveret_worker.qemu.template import write

SIZE = 8 * 1024 * 1024


def recorded(folder: Path) -> RecordedFiles:
    """A machine that never ran: two pieces of memory, the second at the very end."""
    memory = new_memory(SIZE)
    os.pwrite(memory, b"first" * 1000, 1024 * 1024)
    os.pwrite(memory, b"last", SIZE - 4)
    (folder / "disk.qcow2").write_bytes(b"disk")
    return write(folder, memory, b"state", SIZE)


def test_memory_state_and_disk_come_back(tmp_path: Path) -> None:
    files = recorded(tmp_path)
    assert (tmp_path / "memory").stat().st_size < SIZE / 10  # what was never written takes no room
    template = load(tmp_path, files)
    try:
        assert os.fstat(template.memory).st_size == SIZE
        assert os.pread(template.memory, 5000, 1024 * 1024) == b"first" * 1000
        assert os.pread(template.memory, 10, SIZE - 4) == b"last"
        assert os.pread(template.memory, 4096, 0) == bytes(4096)
        assert (template.state, template.disk.read_bytes()) == (b"state", b"disk")
    finally:
        template.close()


def test_nobody_can_change_a_loaded_memory(tmp_path: Path) -> None:
    template = load(tmp_path, recorded(tmp_path))
    try:
        with pytest.raises(PermissionError):
            os.pwrite(template.memory, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(template.memory, 0)
        again = os.open(f"/proc/self/fd/{template.memory}", os.O_RDWR)  # as QEMU opens it
        try:
            with pytest.raises(PermissionError):
                mmap.mmap(again, SIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
            with mmap.mmap(again, SIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as private:
                private[:5] = b"mine!"
            assert os.pread(template.memory, 5, 0) == bytes(5)
        finally:
            os.close(again)
    finally:
        template.close()


@pytest.mark.parametrize("name", ["disk.qcow2", "memory", "state"])
@pytest.mark.parametrize("change", ["altered", "shorter", "longer", "gone"])
def test_whatever_was_changed_is_noticed(tmp_path: Path, name: str, change: str) -> None:
    files = recorded(tmp_path)
    path = tmp_path / name
    content = path.read_bytes()
    before = set(os.listdir("/proc/self/fd"))
    match change:
        case "altered":
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "shorter":
            path.write_bytes(content[:-1])
        case "longer":
            path.write_bytes(content + b"\0")
        case _:
            path.unlink()
    with pytest.raises(MachineError):
        load(tmp_path, files)
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("extent", [(SIZE, 4096), (SIZE - 4096, 8192), (-4096, 4096)])
def test_a_piece_beyond_the_memory_is_refused(tmp_path: Path, extent: tuple[int, int]) -> None:
    files = recorded(tmp_path)
    wrong = files.model_copy(update={"memory_extents": [extent]})
    with pytest.raises(MachineError, match="size"):
        load(tmp_path, wrong)


def test_an_untouched_memory_has_no_extents() -> None:
    memory = new_memory(SIZE)
    try:
        assert extents(memory) == []
    finally:
        os.close(memory)
