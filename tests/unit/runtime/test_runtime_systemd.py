import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from leveret_runtime import systemd
from leveret_runtime.health import Health
from leveret_runtime.systemd import beat, beat_for_ever, notify, watchdog


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


def test_the_watchdog_is_the_managers_for_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    assert watchdog() is None
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert watchdog() == 30.0
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert watchdog() == 30.0
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert watchdog() is None


def test_a_beat_lengthens_start_and_stop_and_repeats_no_status() -> None:
    health = Health()
    extended = f"EXTEND_TIMEOUT_USEC={round(systemd.EXTENSION * 1e6)}"
    fields, told = beat(health, None)
    assert fields == ("WATCHDOG=1", extended, "STATUS=starting")
    health.serving(lambda: "4 slots")
    fields, told = beat(health, told)
    assert fields == ("WATCHDOG=1", "STATUS=4 slots")
    assert beat(health, told) == (("WATCHDOG=1",), "4 slots")
    health.stopping()
    assert beat(health, told)[0] == ("WATCHDOG=1", extended, "STATUS=stopping; 4 slots")


async def test_beats_come_while_the_loop_gets_round_and_no_longer(
    receiver: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", str(40_000 * systemd.BEATS))
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    async with asyncio.TaskGroup() as group:
        beats = group.create_task(beat_for_ever(Health()))
        for _ in range(3):
            assert (await asyncio.to_thread(receiver.recv, 4096)).startswith(b"WATCHDOG=1")
        receiver.settimeout(0.4)
        with pytest.raises(TimeoutError):  # ten beats long the loop is held up here
            _drain(receiver)
        beats.cancel()


def _drain(receiver: socket.socket) -> None:
    while True:
        receiver.recv(4096)


async def test_nobody_who_does_not_watch_is_sent_beats(
    receiver: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would fill the socket of who waits for READY=1 alone, and later."""
    receiver.bind(str(tmp_path / "notify"))
    receiver.settimeout(0)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    await beat_for_ever(Health())
    with pytest.raises(BlockingIOError):
        receiver.recv(4096)


async def test_beats_wait_for_no_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "1000000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        monkeypatch.setattr(systemd, "LIMIT", 60.0)
        monkeypatch.setattr(systemd, "BEAT", 0.0)
        async with asyncio.timeout(5):
            async with asyncio.TaskGroup() as group:
                beats = group.create_task(beat_for_ever(Health()))
                for _ in range(2 * int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())):
                    await asyncio.sleep(0)
                beats.cancel()
