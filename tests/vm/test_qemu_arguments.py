"""The command line of a machine, and the QMP client against a scripted QEMU: no machine runs here."""

import asyncio
import dataclasses
import itertools
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_worker.qemu import MachineError, MachineSpec
from leveret_worker.qemu.arguments import Descriptors, MemoryFile, kernel_command_line, qemu_arguments
from leveret_worker.qemu.confinement import QemuUser, confined, may_open
from leveret_worker.qemu.console import LIMIT, BoundedText
from leveret_worker.qemu.qmp import MAX_MESSAGE, Monitor

SPEC = MachineSpec("x86_64", "q35", "max", "ttyS0", memory_mib=512, vcpus=2)
DESCRIPTORS = Descriptors(kernel=11, initrd=12, disks=(13, 14), guest=15, monitor=16)


def values(arguments: list[str], option: str) -> list[str]:
    return [after for word, after in itertools.pairwise(arguments) if word == option]


def test_a_machine_has_what_the_spec_says_and_nothing_by_default() -> None:
    arguments = qemu_arguments(SPEC, DESCRIPTORS)
    assert arguments[0] == "qemu-system-x86_64"
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(arguments)
    assert values(arguments, "-m") == ["512"]
    assert values(arguments, "-smp") == ["2"]
    assert values(arguments, "-accel") == ["tcg,tb-size=256"]
    assert values(arguments, "-nic") == ["none"]
    assert values(arguments, "-netdev") == []
    assert values(arguments, "-sandbox") == ["on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]


def test_only_the_overlay_is_writable_and_the_base_lies_under_it() -> None:
    arguments = qemu_arguments(SPEC, DESCRIPTORS)
    base, overlay = (json.loads(value) for value in values(arguments, "-blockdev"))
    assert base["read-only"] is True
    assert base["file"]["read-only"] is True
    assert overlay["backing"] == base["node-name"]
    assert values(arguments, "-add-fd") == ["fd=13,set=1", "fd=14,set=2"]
    assert [base["file"]["filename"], overlay["file"]["filename"]] == ["/dev/fdset/1", "/dev/fdset/2"]


def test_a_restored_machine_has_a_layer_more_and_only_its_own_disk_is_writable() -> None:
    layered = dataclasses.replace(DESCRIPTORS, disks=(13, 17, 14), memory=MemoryFile(18, recorded=True))
    assert {13, 17, 14, 18} <= set(layered.all())
    base, layer, own = (json.loads(value) for value in values(qemu_arguments(SPEC, layered), "-blockdev"))
    assert (base["backing"], layer["backing"], own["backing"]) == (None, base["node-name"], layer["node-name"])
    assert [node.get("read-only", False) for node in (base, layer, own)] == [True, True, False]
    assert [node["file"]["read-only"] for node in (base, layer, own)] == [True, True, False]


def test_recording_and_restoring_differ_only_in_who_may_change_the_memory() -> None:
    recording, restoring = (
        qemu_arguments(SPEC, dataclasses.replace(DESCRIPTORS, memory=MemoryFile(18, recorded=recorded)))
        for recorded in (False, True)
    )
    shared, private = (json.loads(values(words, "-object")[0]) for words in (recording, restoring))
    assert (shared.pop("share"), private.pop("share")) == (True, False)
    assert shared == private
    assert (shared["size"], shared["mem-path"]) == (512 * 1024 * 1024, "/proc/self/fd/18")
    assert values(restoring, "-incoming") == ["defer"]
    rest = [[word for word in words if '"share"' not in word] for words in (recording, restoring)]
    assert [word for word in rest[1] if word not in ("-incoming", "defer")] == rest[0]


def test_no_argument_is_a_path_of_the_host() -> None:
    for word in qemu_arguments(SPEC, DESCRIPTORS):
        assert "/" not in word or "/proc/self/fd/" in word or "/dev/fdset/" in word


def test_a_network_card_leads_into_qemus_user_networking() -> None:
    spec = MachineSpec("x86_64", "q35", "max", "ttyS0", network_card=True)
    assert values(qemu_arguments(spec, DESCRIPTORS), "-netdev") == ["user,id=net"]
    assert "leveret_address=10.0.2.15/24" in kernel_command_line(spec)
    assert "leveret_address" not in kernel_command_line(SPEC)


def test_a_panic_ends_the_machine() -> None:
    assert "panic=-1" in kernel_command_line(SPEC).split()


def test_no_guest_panics_of_a_timer_that_a_busy_host_held_up() -> None:
    assert "no_timer_check" in kernel_command_line(dataclasses.replace(SPEC, architecture="x86_64")).split()
    assert "no_timer_check" not in kernel_command_line(dataclasses.replace(SPEC, architecture="aarch64")).split()


@pytest.mark.parametrize("fault", [{"memory_mib": 1}, {"vcpus": 0}])
def test_impossible_machines_are_refused(fault: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="64 MiB"):
        MachineSpec("x86_64", "q35", "max", "ttyS0", **fault)  # type: ignore[arg-type]


def test_confinement_gives_up_everything() -> None:
    command = confined(["qemu"], QemuUser(1234, 1235, (36,)))
    assert command[-2:] == ["--", "qemu"]
    assert {"--no-new-privs", "--reuid=1234", "--regid=1235", "--inh-caps=-all", "--bounding-set=-all"} <= set(command)
    assert values(command, "--groups") == ["36"]
    assert "--clear-groups" in confined(["qemu"], QemuUser(1, 1))
    assert values(confined(["qemu"], None), "--pdeathsig") == ["KILL"]


def test_whether_a_user_may_open_a_device_goes_by_owner_group_and_mode(tmp_path: Path) -> None:
    device = tmp_path / "kvm"
    device.touch()
    status = device.stat()
    other, member = QemuUser(54321, 54321), QemuUser(54321, 54321, (status.st_gid,))
    for mode, others, members in (
        (0o600, False, False),
        (0o660, False, True),
        (0o666, True, True),
        (0o640, False, False),
    ):
        device.chmod(mode)
        assert (may_open(device, other), may_open(device, member)) == (others, members)
    assert may_open(device, None) is os.access(device, os.R_OK | os.W_OK)


@given(st.lists(st.binary(max_size=LIMIT // 2), max_size=6))
def test_console_keeps_the_end_within_its_bound(blocks: list[bytes]) -> None:
    text = BoundedText()
    for block in blocks:
        text.add(block)
    assert text.total == sum(map(len, blocks))
    assert bytes(text._kept) == b"".join(blocks)[-LIMIT:]
    assert text.tail().isprintable()


@asynccontextmanager
async def monitor(*answers: bytes) -> AsyncIterator[tuple[Monitor, list[tuple[str, dict[str, Any]]]]]:
    """A monitor whose QEMU reads one command before each of `answers`, then closes."""
    ours, theirs = socket.socketpair()
    events: list[tuple[str, dict[str, Any]]] = []
    qemu_reader, qemu_writer = await asyncio.open_unix_connection(sock=theirs)
    client = await Monitor.over(ours, lambda name, data: events.append((name, data)))

    async def qemu() -> None:
        qemu_writer.write(b'{"QMP": {"version": {}}}\r\n')
        for answer in answers:
            await qemu_reader.readline()
            qemu_writer.write(answer)
        await qemu_writer.drain()
        qemu_writer.close()
        await qemu_writer.wait_closed()

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(client.run())
        tasks.create_task(qemu())
        yield client, events
        await client.close()


def test_the_cause_of_a_panic_is_not_pushed_out_by_its_trace() -> None:
    text = BoundedText()
    text.add(b"the cause\n[ 1.0] Kernel panic - not syncing: init died\r\n" + b"a register or so\r\n" * 1000)
    assert text.tail() == "the cause [ 1.0] Kernel panic - not syncing: init died"


async def test_qmp_answers_and_events() -> None:
    event = b'{"event": "VSERPORT_CHANGE", "data": {"id": "guest", "open": true}}\r\n'
    async with monitor(event + b'{"return": {"a": 1}, "id": 1}\r\n', b'{"error": {"desc": "no"}, "id": 2}\r\n') as pair:
        client, events = pair
        assert await client.execute("query-status") == {"a": 1}
        assert events == [("VSERPORT_CHANGE", {"id": "guest", "open": True})]
        with pytest.raises(MachineError, match=r"refused.*no"):
            await client.execute("stop")


@pytest.mark.parametrize(
    "answer", [b"", b"nonsense\r\n", b"[1]\r\n", b"[" * 100_000 + b"\r\n", b"x" * (MAX_MESSAGE + 1) + b"\r\n"]
)
async def test_qmp_breaking_off_fails_who_waits(answer: bytes) -> None:
    async with monitor(answer) as (client, _):
        with pytest.raises(MachineError, match=r"closed|no QMP"):
            await client.execute("query-status")
        with pytest.raises(MachineError, match="closed"):
            await client.execute("query-status")


async def test_qmp_sends_an_open_file_with_its_command(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    client = await Monitor.over(ours, lambda name, data: None)
    (tmp_path / "file").write_text("content")
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(client.run())
        with (tmp_path / "file").open() as file, theirs:
            asked = tasks.create_task(client.execute("getfd", {"fdname": "state"}, descriptor=file.fileno()))
            await asyncio.get_running_loop().run_in_executor(None, theirs.recv, 1, socket.MSG_PEEK)
            line, (got,), _, _ = socket.recv_fds(theirs, 1000, 1)
            with open(got) as received:
                assert received.read() == "content"
            request = json.loads(line)
            assert (request["execute"], request["arguments"]) == ("getfd", {"fdname": "state"})
            theirs.sendall(json.dumps({"return": {}, "id": request["id"]}).encode() + b"\n")
            assert await asked == {}
        await running
        await client.close()
