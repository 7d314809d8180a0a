"""Real machines in their cages: what QEMU is on the host, and what a guest costs it whatever the guest does."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from leveret_guestapi import GuestClient
from leveret_worker.booting import boot_files, machine_spec
from leveret_worker.config import Config
from leveret_worker.qemu import Accelerator, CageRules, Cages, Machine, MachineSpec, Network
from tests.support.confining import whole
from tests.support.guest_images import BOOT_LIMIT, stored_image
from tests.support.processes import descendants, until_gone

pytestmark = [pytest.mark.vm, pytest.mark.image("test/minimal"), pytest.mark.timeout(900)]

MIB = 1024 * 1024


@asynccontextmanager
async def guest_in_a_cage(
    folder: Path, rules: CageRules | None = None, memory_mib: int = 256
) -> AsyncIterator[tuple[Machine, GuestClient]]:
    image = stored_image("test/minimal")
    about = image.architecture
    spec = MachineSpec("x86_64", about.machine, about.cpu, about.console, memory_mib=memory_mib)
    async with (
        Cages(rules) as cages,
        cages.cage("test", spec, Network.NONE) as cage,
        Machine.start(spec, await boot_files(image), folder / "m", cage=cage) as machine,
    ):
        await machine.wait_port_open(BOOT_LIMIT)
        async with GuestClient.connect(machine.guest_socket, hello_timeout=BOOT_LIMIT) as guest:
            yield machine, guest


def qemu_below(process: int) -> int:
    """The process id of the QEMU that `process` became or started."""
    (found,) = [pid for pid in descendants(process) if Path(f"/proc/{pid}/comm").read_text().startswith("qemu")]
    return found


def status_of(process: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {key: value.split() for key, _, value in (line.partition(":") for line in lines)}


@whole
async def test_qemu_is_nobody_and_can_do_nothing(tmp_path: Path) -> None:
    async with guest_in_a_cage(tmp_path) as (machine, _):
        qemu = qemu_below(machine.pid)
        status = status_of(qemu)
        assert status["Seccomp"] == ["2"]
        assert status["NoNewPrivs"] == ["1"]
        assert "0" not in status["Uid"]
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert status[kind] == ["0" * 16]
        kinds = ("ipc", "mnt", "net", "pid", "user", "uts")
        ours, theirs = ({os.readlink(f"/proc/{one}/ns/{kind}") for kind in kinds} for one in ("self", str(qemu)))
        assert not ours & theirs
        assert b"LEVERET" not in Path(f"/proc/{qemu}/environ").read_bytes()
        assert sorted(os.listdir(f"/proc/{qemu}/root")) == ["bin", "dev", "etc", "lib", "lib64", "proc", "sbin", "usr"]
        assert (tmp_path / "m").stat().st_mode & 0o777 == 0o700
    await until_gone([qemu])


async def test_a_qemu_that_is_killed_ends_its_machine(tmp_path: Path) -> None:
    async with guest_in_a_cage(tmp_path) as (machine, _):
        os.kill(qemu_below(machine.pid), 9)
        async with asyncio.timeout(10):
            assert await machine.wait() in (128 + 9, -9)  # as bubblewrap tells it, or QEMU itself without that
            await machine.wait_port_closed()


async def test_a_guest_that_fills_its_disk_gets_an_error_and_its_machine_goes_on(tmp_path: Path) -> None:
    async with guest_in_a_cage(tmp_path, CageRules(disk_mib=64)) as (machine, guest):
        fill = "dd if=/dev/zero of=/fill bs=1M count=300; sync; dd if=/fill of=/dev/null bs=1M iflag=direct"
        done = await guest.run(["sh", "-c", fill], time_limit=300)
        assert not done.status.success
        assert (tmp_path / "m" / "overlay.qcow2").stat().st_size <= 64 * MIB
        assert machine.exit_status is None
        assert (await machine.execute("query-status"))["status"] == "running"
        assert (await guest.run(["echo", "alive"])).stdout == b"alive\n"


@whole
async def test_a_guest_that_forks_without_end_and_uses_all_memory_stays_within_its_machine(tmp_path: Path) -> None:
    greedy = """
import os
kept = []
while True:
    try:
        os.fork()
        kept.append(bytearray(1 << 20))
    except (OSError, MemoryError):
        pass
"""
    async with guest_in_a_cage(tmp_path) as (machine, guest):
        qemu = qemu_below(machine.pid)
        before = len(os.listdir(f"/proc/{qemu}/task"))
        command = ["timeout", "-s", "KILL", "20", "python3", "-c", greedy]
        await guest.write_file("/tmp/greedy", b'exec "$@" </dev/null >/dev/null 2>&1 &\n')
        await guest.run(["sh", "/tmp/greedy", *command])
        loop = asyncio.get_running_loop()
        until = loop.time() + 10
        while loop.time() < until and machine.exit_status is None:
            status = status_of(qemu)
            assert int(status["VmRSS"][0]) < (256 + 512) * 1024
            assert int(status["Threads"][0]) <= before + 80
            assert len(descendants(machine.pid)) <= 3
            await asyncio.sleep(0.5)


def test_a_worker_gives_its_machines_a_card_where_they_have_a_network() -> None:
    image = stored_image("test/minimal")
    config = Config(amqp_url="amqp://unused", name="w1", spool=Path("/nonexistent"))  # type: ignore[arg-type]
    for network in Network:
        spec = machine_spec(config, image, Accelerator.TCG, network)
        assert spec.network_card is (network is not Network.NONE)
