"""How soon a guest runs its first command without KVM: gone on from a template, booted, booted and reached by SSH."""

import asyncio
import os
import shutil
import time
from contextlib import AsyncExitStack
from pathlib import Path

from bench.result import Result, median, percentile, skipped
from bench.setting import Bench
from bench.ssh_peer import first_command
from leveret_worker.booting import boot_files
from leveret_worker.config import Config
from leveret_worker.executors import cage_rules
from leveret_worker.images import StoredImage, default_store
from leveret_worker.qemu import Accelerator, Cages, Machine, Templates
from leveret_worker.starting import Starter, Wanted

RESTORES = 100
BOOTS = 3
#: Seconds for one guest.
LIMIT = 180.0
#: With systemd and sshd in it; see deploy/images/bench.
SSH_IMAGE = "bench/systemd"
PREFERRED = (SSH_IMAGE, "debian/trixie")
RESTORE = "template restore → first command"
BOOT = "cold boot → first command"
SSH = "cold boot, systemd, sshd → first SSH command"
MIB = 1024 * 1024


async def measure(bench: Bench) -> list[Result]:
    """Start guests of one image in each of the three ways."""
    host = os.uname().machine
    images = {i.manifest.name: i for i in default_store().images() if i.manifest.architecture == host}
    if not images:
        return [skipped(name, "s", f"no {host} image in the store; `make demo` builds one") for name in (RESTORE, BOOT)]
    if not shutil.which(f"qemu-system-{host}"):
        return [skipped(name, "s", f"qemu-system-{host} is not installed") for name in (RESTORE, BOOT)]
    image = images[min(images, key=lambda name: (_preference(name), name))]
    config = Config.model_validate(
        {"amqp_url": "amqp://unused", "name": "bench", "spool": bench.folder, "network": "full", "isolation": "try"}
    )
    templates = Templates(bench.folder / "boot-templates", disk_limit=4096 * MIB, memory_limit=1024 * MIB)
    async with Cages(cage_rules(config)) as cages:
        # the booting one never restores, whatever has been recorded
        booter, restorer = Starter(config, cages, None), Starter(config, cages, templates)
        wanted = Wanted(image, await boot_files(image), restorer.spec(image, Accelerator.TCG))
        booted = [await _start(booter, wanted, bench.folder / f"boot-{n}") for n in range(BOOTS)]
        await _start(restorer, wanted, bench.folder / "first")  # records the template
        restored = [await _start(restorer, wanted, bench.folder / f"restore-{n}") for n in range(RESTORES)]
        by_ssh = await _by_ssh(cages, wanted, bench.folder) if image.manifest.name == SSH_IMAGE else None
    templates.close()
    return _results(image, booted, restored, by_ssh)


def _preference(name: str) -> int:
    return PREFERRED.index(name) if name in PREFERRED else len(PREFERRED)


async def _start(starter: Starter, wanted: Wanted, folder: Path) -> tuple[float, str]:
    """Seconds until the end of a guest's first command, and how it was started."""
    async with asyncio.timeout(LIMIT), AsyncExitStack() as running:
        began = time.perf_counter()
        started = await starter.start(running, wanted, folder, "bench")
        done = await started.api.run(["true"])
        seconds = time.perf_counter() - began
        if not done.status.success:
            raise RuntimeError(f"the guest's first command failed: {done.status}")
    return seconds, started.how


async def _by_ssh(cages: Cages, wanted: Wanted, folder: Path) -> list[float] | str:
    """Seconds of each boot until the end of a first command by SSH, or why there is no such figure."""
    if not shutil.which("ssh"):
        return "no ssh on this host"
    return [await _until_ssh(cages, wanted, folder / f"ssh-{n}") for n in range(BOOTS)]


async def _until_ssh(cages: Cages, wanted: Wanted, folder: Path) -> float:
    async with (
        asyncio.timeout(LIMIT),
        cages.cage(folder.name, wanted.spec, cages.network) as cage,
    ):
        began = time.perf_counter()
        async with Machine.start(wanted.spec, wanted.boot, folder, cage=cage) as machine:
            await first_command(machine)
            return time.perf_counter() - began


def _results(
    image: StoredImage,
    booted: list[tuple[float, str]],
    restored: list[tuple[float, str]],
    by_ssh: list[float] | str | None,
) -> list[Result]:
    name = image.manifest.name
    boots = [seconds for seconds, _ in booted]
    seconds = [seconds for seconds, how in restored if "restored" in how]
    taken = f"{name}, TCG, {RESTORES} restores one after the other"
    results = [
        Result(f"{RESTORE}, median", median(seconds), "s", compared_with=taken),
        Result(f"{RESTORE}, p99", percentile(seconds, 0.99), "s", compared_with=taken),
        Result("restores that came up", len(seconds), f"of {RESTORES}", RESTORES, "higher", "none hung or was booted"),
        Result(BOOT, median(boots), "s", compared_with=f"{name}, TCG, median of {BOOTS}"),
        Result("restore ÷ cold boot", median(seconds) / median(boots), "ratio", compared_with="medians"),
    ]
    ratio = "restore ÷ cold boot with SSH"
    if isinstance(by_ssh, list):
        against = f"{name}, TCG, median of {BOOTS}"
        return [
            *results,
            Result(SSH, median(by_ssh), "s", compared_with=against),
            Result(f"{ratio}, median", median(seconds) / median(by_ssh), "ratio", 0.1, compared_with="medians"),
            Result(f"{ratio}, p99", percentile(seconds, 0.99) / median(by_ssh), "ratio", compared_with="p99, median"),
        ]
    return [*results, skipped(ratio, "ratio", by_ssh or f"no image {SSH_IMAGE}: `leveret-image build {SSH_IMAGE}`")]
