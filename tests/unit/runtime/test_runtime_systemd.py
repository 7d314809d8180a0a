import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from leveret_runtime import systemd
from leveret_runtime.systemd import notify


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.settimeout(5)
        yield made


def test_fields_arrive_as_lines(receiver: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    notify("READY=1", "STATUS=4 slots")
    assert receiver.recv(4096) == b"READY=1\nSTATUS=4 slots"


def test_an_abstract_socket(receiver: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver.bind(f"\0{tmp_path}")
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{tmp_path}")
    notify("STOPPING=1")
    assert receiver.recv(4096) == b"STOPPING=1"


def test_a_manager_that_reads_no_more_stops_nobody(
    receiver: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service says so each time it has its broker back."""
    most = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
    monkeypatch.setattr(systemd, "LIMIT", 0.001)
    receiver.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    for number in range(most + 10):
        notify(f"READY={number}")
    assert receiver.recv(4096) == b"READY=0"


def test_without_a_manager_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify("READY=1")
