"""Real machines: boot to the agent, confinement, every way to end, and what the probes say. All under TCG."""

import asyncio
import contextlib
import dataclasses
import gc
import os
import signal
import sys
import weakref
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from leveret_guestapi import GuestClient, agent_source
from leveret_worker.images import StoredImage, build_initrd
from leveret_worker.qemu import (
    BootFiles,
    Cage,
    Cages,
    Machine,
    MachineError,
    MachineSpec,
    Network,
    probe_boot,
    probe_emulator,
    probe_kvm,
)
from tests.support.guest_images import stored_image

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def image() -> StoredImage:
    return stored_image("test/minimal")


@pytest.fixture
def spec(image: StoredImage) -> MachineSpec:
    architecture = image.architecture
    return MachineSpec("x86_64", architecture.machine, architecture.cpu, architecture.console, memory_mib=512)


@pytest.fixture
def boot(image: StoredImage) -> BootFiles:
    return BootFiles(image.kernel, build_initrd(image, agent_source()), image.disk)


@contextlib.asynccontextmanager
async def started(spec: MachineSpec, boot: BootFiles, directory: Path) -> AsyncIterator[Machine]:
    async with (
        Cages() as cages,
        cages.cage("test", spec, Network.NONE) as cage,
        Machine.start(spec, boot, directory, cage=cage) as machine,
    ):
        yield machine


@pytest.fixture
async def cage(spec: MachineSpec) -> AsyncIterator[Cage]:
    async with Cages() as cages, cages.cage("test", spec, Network.NONE) as made:
        yield made


async def say_hello(path: Path) -> None:
    async with GuestClient.connect(path):
        pass


async def gone(pid: int) -> None:
    """Wait until the process is gone."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(handle, ended.set)
    try:
        async with asyncio.timeout(10):
            await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


async def test_a_guest_boots_to_its_agent_and_powers_off(
    image: StoredImage, spec: MachineSpec, boot: BootFiles, tmp_path: Path
) -> None:
    async with started(spec, boot, tmp_path / "m") as machine:
        await machine.wait_port_open(120)
        async with GuestClient.connect(machine.guest_socket) as guest:
            assert guest.hello.pid == 1
            script = "id -un; pwd; sudo -n id -un; hostname; ls /sys/class/net; git --version >&2; bash --version >&2"
            done = await guest.run(script, user="build")
            assert done.stdout.decode().split() == ["build", "/home/build", "root", "build", "lo"]
            assert done.status.code == 0
            pty = await guest.run("touch /dev/shm/x /run/lock/y /tmp/z && readlink /dev/fd && mount", user="build")
            assert pty.status.code == 0
            assert b"/dev/vda on / type ext4" in pty.stdout
            await guest.run("echo changed >/etc/hostname; sync")
            await guest.shut_down()
        async with asyncio.timeout(20):
            assert await machine.wait() == 0
    assert not (tmp_path / "m").exists()
    image.store.verify(image)  # what the guest wrote is not in the image


async def test_leaving_kills_qemu_and_removes_its_directory(spec: MachineSpec, boot: BootFiles, tmp_path: Path) -> None:
    class Surprise(Exception):
        pass

    with pytest.raises(Surprise):
        async with started(spec, boot, tmp_path / "m") as machine:
            raise Surprise
    assert not Path(f"/proc/{machine.pid}").exists()
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("raised", [None, MachineError("the build's end")])
async def test_nothing_of_an_ended_machine_waits_for_the_cycle_collector(
    spec: MachineSpec, boot: BootFiles, tmp_path: Path, raised: MachineError | None
) -> None:
    """A worker's collector looks seldom, and a guest decides how much its console holds."""
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(MachineError):
            async with started(spec, boot, tmp_path / "m") as machine:
                kept = weakref.ref(machine.console)
                del machine
                if raised is not None:
                    raise raised
        if raised is not None:
            raised.__traceback__ = None
        assert kept() is None
    finally:
        gc.enable()


async def test_cancelling_kills_qemu_and_removes_its_directory(
    spec: MachineSpec, boot: BootFiles, tmp_path: Path
) -> None:
    running = asyncio.Queue[int]()

    async def hold() -> None:
        async with started(spec, boot, tmp_path / "m") as machine:
            running.put_nowait(machine.pid)
            await asyncio.Event().wait()

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        holder = tasks.create_task(hold())
        pid = await running.get()
        holder.cancel()
    assert not Path(f"/proc/{pid}").exists()
    assert not (tmp_path / "m").exists()


async def test_a_killed_qemu_is_noticed(spec: MachineSpec, boot: BootFiles, tmp_path: Path) -> None:
    async with started(spec, boot, tmp_path / "m") as machine:
        os.kill(machine.pid, signal.SIGKILL)
        with pytest.raises(MachineError, match="ended before its agent was there"):
            await machine.wait_port_open(20)
        async with asyncio.timeout(10):
            await machine.wait_port_closed()
        with pytest.raises(MachineError):
            await machine.execute("query-status")


WORKER = """
import asyncio, pathlib, sys
from leveret_worker.qemu import BootFiles, Cages, Machine, MachineSpec, Network

async def main(machine, console, *paths):
    spec = MachineSpec("x86_64", machine, "max", console)
    *files, directory = map(pathlib.Path, paths)
    async with (
        Cages() as cages,
        cages.cage("test", spec, Network.NONE) as cage,
        Machine.start(spec, BootFiles(*files), directory, cage=cage) as running,
    ):
        print(running.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_qemu_dies_with_the_worker(spec: MachineSpec, boot: BootFiles, tmp_path: Path) -> None:
    files = (boot.kernel, boot.initrd, boot.disk, tmp_path / "m")
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, spec.machine, spec.console, *map(str, files), stdout=asyncio.subprocess.PIPE
    )
    assert worker.stdout is not None
    async with asyncio.timeout(20):
        while not (said := await worker.stdout.readline()).strip().isdigit():  # but for what the host lacks
            assert said
    pid = int(said)
    assert Path(f"/proc/{pid}").exists()
    os.kill(worker.pid, signal.SIGKILL)
    await gone(pid)
    assert not Path(f"/proc/{pid}").exists() or "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    await worker.communicate()


async def test_an_agent_that_ends_ends_the_machine(
    image: StoredImage, spec: MachineSpec, boot: BootFiles, tmp_path: Path
) -> None:
    dying = dataclasses.replace(boot, initrd=build_initrd(image, b"raise SystemExit('no more')\n"))
    async with started(spec, dying, tmp_path / "m") as machine:
        with pytest.raises(MachineError, match=r"(?s)ended before its agent was there.*the console said.*no more"):
            await machine.wait_port_open(120)


async def test_a_disk_that_is_none_is_refused(spec: MachineSpec, boot: BootFiles, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"this is no qcow2 image at all")
    with pytest.raises(MachineError, match="disk can't be made"):
        async with started(spec, dataclasses.replace(boot, disk=tmp_path / "disk"), tmp_path / "m"):
            pass
    assert not (tmp_path / "m").exists()


async def test_what_qemu_refuses_is_said(spec: MachineSpec, boot: BootFiles, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"QEMU did not start.*QEMU said.*unsupported machine type"):
        async with started(dataclasses.replace(spec, machine="nosuchmachine"), boot, tmp_path / "m"):
            pass
    assert not (tmp_path / "m").exists()


async def test_a_directory_of_any_depth_will_do(spec: MachineSpec, boot: BootFiles, tmp_path: Path) -> None:
    async with started(spec, boot, tmp_path / ("x" * 100) / "machine") as machine:
        await machine.wait_port_open(120)
        async with GuestClient.connect(machine.guest_socket) as guest:
            assert (await guest.run(["true"])).status.success


async def test_the_emulator_is_proved_by_starting_it(spec: MachineSpec, cage: Cage) -> None:
    assert str(await probe_emulator(spec, cage=cage)) == "tcg: offered: qemu-system-x86_64 starts a q35 machine"
    absent = await probe_emulator(dataclasses.replace(spec, architecture="pdp11"), cage=cage)
    assert str(absent) == "tcg: not offered: qemu-system-pdp11 is not installed"
    broken = await probe_emulator(dataclasses.replace(spec, machine="nosuchmachine"), cage=cage)
    assert not broken.offered
    assert "unsupported machine type" in broken.reason


async def test_a_booting_guest_proves_its_accelerator(
    spec: MachineSpec, boot: BootFiles, cage: Cage, tmp_path: Path
) -> None:
    result = await probe_boot(spec, boot, tmp_path / "m", say_hello, cage=cage, deadline=120)
    assert (
        str(result) == f"tcg: offered: the probe guest booted and its agent answered, under Linux {os.uname().release}"
    )


async def test_a_guest_that_hangs_costs_no_more_than_the_deadline(
    spec: MachineSpec, boot: BootFiles, cage: Cage, tmp_path: Path
) -> None:
    before = children()
    result = await probe_boot(spec, boot, tmp_path / "m", say_hello, cage=cage, deadline=1.0)
    assert str(result) == "tcg: not offered: the probe guest did not answer in 1 s"
    assert result.seconds < 5
    assert children() == before
    assert not (tmp_path / "m").exists()


async def test_kvm_is_not_offered_where_it_obviously_can_not_work(
    spec: MachineSpec, boot: BootFiles, cage: Cage, tmp_path: Path
) -> None:
    device = tmp_path / "kvm"
    absent = await probe_kvm(spec, boot, tmp_path / "m", say_hello, cage=cage, device=device)
    assert str(absent) == f"kvm: not offered: {device} is absent"
    device.touch(mode=0o600)
    if os.geteuid() == 0:
        closed = await probe_kvm(spec, boot, tmp_path / "m", say_hello, cage=cage, device=device)
        assert "may not open" in closed.reason
    foreign = dataclasses.replace(spec, architecture="pdp11")
    assert "no pdp11" in (await probe_kvm(foreign, boot, tmp_path / "m", say_hello, cage=cage)).reason


async def test_kvm_is_believed_only_after_a_real_boot(
    spec: MachineSpec, boot: BootFiles, cage: Cage, tmp_path: Path
) -> None:
    """Whatever this host's /dev/kvm is like: an answer with its reason in time, and nothing left."""
    before = children()
    answered = asyncio.Event()

    async def hello(path: Path) -> None:
        await say_hello(path)
        answered.set()

    result = await probe_kvm(spec, boot, tmp_path / "m", hello, cage=cage)
    assert result.offered is answered.is_set()
    assert result.reason
    assert result.seconds < 10
    assert children() == before
    assert not (tmp_path / "m").exists()


def children() -> set[str]:
    """The process ids of our children."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
