"""A cold boot: from starting QEMU to the end of the guest's first command, without KVM."""

import os
import shutil
import time
from pathlib import Path

from bench.result import Result, median, skipped
from bench.setting import Bench
from leveret_guestapi import GuestClient, agent_source
from leveret_worker.images import StoredImage, build_initrd, default_store
from leveret_worker.qemu import Accelerator, BootFiles, Machine, MachineSpec, qemu_user

BOOTS = 3
LIMIT = 60.0
PREFERRED = "debian/trixie"
NAME = "QEMU cold boot → first command"


async def measure(bench: Bench) -> list[Result]:
    """Boot a stored image some times over."""
    host = os.uname().machine
    images = [image for image in default_store().images() if image.manifest.architecture == host]
    if not images:
        return [skipped(NAME, "s", f"no {host} image in the store; `make demo` builds one")]
    if not shutil.which(f"qemu-system-{host}"):
        return [skipped(NAME, "s", f"qemu-system-{host} is not installed")]
    image = min(images, key=lambda image: (image.manifest.name != PREFERRED, image.manifest.name))
    initrd = build_initrd(image, agent_source())
    seconds = [await _boot(image, initrd, bench.folder / f"boot-{n}") for n in range(BOOTS)]
    taken = f"{image.manifest.name}, TCG, median of {BOOTS}"
    return [Result(NAME, median(seconds), "s", compared_with=taken)]


async def _boot(image: StoredImage, initrd: Path, folder: Path) -> float:
    architecture = image.architecture
    spec = MachineSpec(
        image.manifest.architecture, architecture.machine, architecture.cpu, architecture.console, memory_mib=512
    )
    boot = BootFiles(image.kernel, initrd, image.disk)
    began = time.perf_counter()
    async with Machine.start(spec, boot, folder, user=qemu_user(Accelerator.TCG)) as machine:
        await machine.wait_port_open(LIMIT)
        async with GuestClient.connect(machine.guest_socket, hello_timeout=LIMIT) as guest:
            done = await guest.run(["true"])
            seconds = time.perf_counter() - began
    if done.status.code != 0:
        raise RuntimeError(f"the guest's first command failed: {done}")
    return seconds
