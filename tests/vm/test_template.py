"""Recorded machines and those that go on from them, with real guests under TCG."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from leveret_guestapi import GuestClient
from leveret_worker.booting import boot_files, settle
from leveret_worker.images import StoredImage
from leveret_worker.qemu import (
    BootFiles,
    Cages,
    Machine,
    MachineError,
    MachineSpec,
    Network,
    RecordedFiles,
    Template,
    load,
    record,
    restored,
)
from tests.support.guest_images import stored_image
from tests.support.processes import descendants

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

LIMIT = 120.0


@dataclass(frozen=True)
class Recorded:
    """A recorded machine on disk, and what it was recorded from."""

    image: StoredImage
    spec: MachineSpec
    boot: BootFiles
    folder: Path
    files: RecordedFiles


@pytest.fixture(scope="module", params=["x86_64", pytest.param("aarch64", marks=pytest.mark.slow)])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    image = stored_image("test/minimal", request.param)
    about = image.architecture
    spec = MachineSpec(
        request.param, about.machine, about.cpu, about.console, memory_mib=256, vcpus=2, network_card=True
    )
    folder = tmp_path_factory.mktemp("template")

    async def make() -> Recorded:
        boot = await boot_files(image)
        async with Cages() as cages, cages.cage("test", spec, Network.NONE) as cage:
            files = await record(spec, boot, folder, lambda path: settle(path, LIMIT), cage=cage, limit=LIMIT)
        return Recorded(image, spec, boot, folder, files)

    return asyncio.run(make())


@pytest.fixture
async def template(recorded: Recorded) -> AsyncIterator[Template]:
    loaded = load(recorded.folder, recorded.files)
    yield loaded
    loaded.close()


@asynccontextmanager
async def going_on(
    recorded: Recorded, template: Template, directory: Path
) -> AsyncIterator[tuple[Machine, GuestClient]]:
    """A machine that goes on from the template, and its guest."""
    async with AsyncExitStack() as stack:
        cages = await stack.enter_async_context(Cages())
        cage = await stack.enter_async_context(cages.cage(directory.name, recorded.spec, Network.NONE))
        started = restored(recorded.spec, recorded.boot, template, directory, cage=cage)
        machine = await stack.enter_async_context(started)
        await machine.wait_port_open(LIMIT)
        guest = await stack.enter_async_context(GuestClient.connect(machine.guest_socket, hello_timeout=LIMIT))
        yield machine, guest


async def said(guest: GuestClient, script: str) -> str:
    done = await guest.run(script)
    assert done.status.success, done
    return done.stdout.decode()


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text()


RANDOM = "for n in 1 2 3; do cat /proc/sys/kernel/random/uuid; done; head -c 16 /dev/urandom | od -A n -t x1"
IDENTITY = "hostname; cat /etc/machine-id"


async def test_two_machines_from_one_template_share_nothing_they_should_not(
    recorded: Recorded, template: Template, tmp_path: Path
) -> None:
    async with (
        going_on(recorded, template, tmp_path / "a") as (_, one),
        going_on(recorded, template, tmp_path / "b") as (
            _,
            two,
        ),
    ):
        seen = []
        for number, guest in enumerate((one, two), start=1):
            await guest.sync_clock()
            await guest.set_identity(host_name=f"job-{number}", machine_id=f"{number:032x}")
            assert abs(float(await said(guest, "date +%s")) - time.time()) < 30
            assert (await said(guest, IDENTITY)).split() == [f"job-{number}", f"{number:032x}"]
            seen.append(set((await said(guest, RANDOM)).split("\n")[:-1]))
        assert len(seen[0]) == len(seen[1]) == 4
        assert not seen[0] & seen[1]
        # neither memory nor disk of the one is the other's
        await said(one, "echo mine >/root/written; echo mine >/dev/shm/written; sync")
        assert await said(two, "ls /root /dev/shm") == await said(two, "ls /root /dev/shm")
        assert "written" not in await said(two, "ls /root /dev/shm")
    recorded.image.store.verify(recorded.image)
    load(recorded.folder, recorded.files).close()  # nothing of it has changed


async def test_programs_draw_numbers_of_their_own(recorded: Recorded, template: Template, tmp_path: Path) -> None:
    draws = []
    for name in ("a", "b"):
        async with going_on(recorded, template, tmp_path / name) as (_, guest):
            await guest.sync_clock()
            done = await guest.run(["python3", "-c", "import os, random; print(os.urandom(16).hex(), random.random())"])
            assert done.status.success
            draws.append(done.stdout.split())
    assert draws[0][0] != draws[1][0]
    assert draws[0][1] != draws[1][1]


async def test_the_clock_is_right_however_long_the_template_has_lain(
    recorded: Recorded, template: Template, tmp_path: Path
) -> None:
    async with going_on(recorded, template, tmp_path / "m") as (machine, guest):
        await guest.sync_clock()
        await machine.execute("stop")  # as if the host had slept
        await asyncio.sleep(5)
        await machine.execute("cont")
        await guest.sync_clock()
        assert abs(float(await said(guest, "date +%s")) - time.time()) < 3


async def test_a_machine_that_goes_on_is_confined_and_cannot_change_the_template(
    recorded: Recorded, template: Template, tmp_path: Path
) -> None:
    async with going_on(recorded, template, tmp_path / "m") as (machine, guest):
        (qemu,) = (pid for pid in descendants(machine.pid) if name_of(pid).startswith("qemu"))
        assert "Seccomp:\t2" in Path(f"/proc/{qemu}/status").read_text()
        maps = [line for line in Path(f"/proc/{qemu}/maps").read_text().splitlines() if "guest-memory" in line]
        assert maps and all(" rw-p " in line for line in maps)
        assert int(await said(guest, "nproc")) == 2


@pytest.mark.parametrize("state", [b"", b"no device state at all", None])
async def test_what_qemu_does_not_take_is_said_in_time_and_leaves_nothing(
    recorded: Recorded, template: Template, tmp_path: Path, state: bytes | None
) -> None:
    broken = Template(
        template.disk, template.memory, template.state[: len(template.state) // 2] if state is None else state
    )
    with pytest.raises(MachineError):
        async with going_on(recorded, broken, tmp_path / "m"):
            pytest.fail("it went on")
    assert not (tmp_path / "m").exists()


async def test_the_agent_answers_soon(recorded: Recorded, template: Template, tmp_path: Path) -> None:
    began = time.monotonic()
    async with going_on(recorded, template, tmp_path / "m") as (_, guest):
        assert (await guest.run(["true"])).status.success
        assert time.monotonic() - began < 15
