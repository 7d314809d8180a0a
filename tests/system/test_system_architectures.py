"""A manifest for another architecture runs where its emulator is installed, and says why it waits where it is not."""

import os
import shutil
from pathlib import Path

import pytest

from leveret_proto.messages import JobEvent, JobStatus, Reason
from tests.support.databases import Database
from tests.support.guest_images import stored_image
from tests.support.journal import proven
from tests.support.services import Service, Services
from tests.support.system import System, manifest, open_system, roles
from tests.support.vhosts import Vhost

WORKER = "emulating"
IMAGE = "test/minimal"
ARCH = "aarch64" if os.uname().machine != "aarch64" else "x86_64"
LIMIT = 180.0

pytestmark = [
    pytest.mark.vm,
    pytest.mark.image(IMAGE, ARCH),
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which(f"qemu-system-{ARCH}") is None, reason=f"qemu-system-{ARCH} is not installed"),
]


def without_emulator(folder: Path) -> str:
    """A PATH with all commands of this host but the emulator of ARCH."""
    folder.mkdir()
    for directory in ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"):
        for command in Path(directory).glob("*"):
            link = folder / command.name
            if command.name != f"qemu-system-{ARCH}" and not link.is_symlink():
                link.symlink_to(command)
    return str(folder)


async def start_worker(system: System, services: Services, **environment: str) -> Service:
    """A worker with one image, that of ARCH."""
    image = stored_image(IMAGE, ARCH)
    own = system.environment(
        "worker",
        WORKER,
        executor="qemu",
        images=image.store.root,
        network="none",
        memory_mib=256,
        templates_ahead=False,
    )
    return await services.start("leveret_worker.main", own | environment)


async def test_a_foreign_architecture_runs_by_its_emulator_and_waits_without(
    vhost: Vhost, database: Database, services: Services
) -> None:
    await vhost.provision(roles("w1", WORKER))
    async with open_system(vhost, database, services) as system:
        worker = await start_worker(system, services, PATH=without_emulator(services.folder / "bin"))
        job = await system.submit(manifest(("build", "uname -m"), image=IMAGE, arch=ARCH))
        waits = await system.journal.event(job, JobEvent, lambda event: event.reason is Reason.NO_WORKER)
        assert waits.status is JobStatus.PENDING
        assert waits.detail is not None
        assert f"no worker offers {IMAGE} on {ARCH}" in waits.detail
        assert f"lacks arch {ARCH}" in waits.detail
        await worker.terminate()

        await start_worker(system, services)
        end = await system.journal.ended(job, limit=LIMIT)
        assert (end.status, end.worker) == (JobStatus.SUCCESS, WORKER)
        assert f"{ARCH}\n".encode() in await proven((await system.journal.logs(end))["build"])
        system.journal.check(job)
