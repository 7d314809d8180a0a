"""What this host can do, and why: looked at once for people; a worker's own prover does it again and again."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from leveret_proto.capability import size
from leveret_worker.booting import boot_files, machine_spec
from leveret_worker.config import Config
from leveret_worker.executors import cage_rules
from leveret_worker.images import ImageError, StoredImage
from leveret_worker.images.checks import check_stored
from leveret_worker.probes import Probes, QemuProbes
from leveret_worker.qemu import Cages, MachineError, ProbeResult, origin_of
from leveret_worker.stores import image_store, templates_directory

Verdict = Literal["yes", "no", "fault"]
"""`no`: this host does without; `fault`: somebody has to mend it."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    kind: Literal["isolation", "image", "emulator", "kvm", "template", "limits"]
    subject: str
    verdict: Verdict
    reason: str
    seconds: float | None = None

    def line(self) -> str:
        """For people."""
        return f"{self.kind:<10} {self.subject:<28} {self.verdict:<6} {self.reason}"

    def document(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


async def examine(config: Config, folder: Path, probes: Probes | None = None) -> AsyncIterator[Finding]:
    """Look at everything a worker with this configuration could do here, one thing after the other.

    `folder`: for what trials need on disk. `probes`: the trials of emulators and KVM; without them the real ones.
    """
    async with Cages(cage_rules(config)) as cages:
        yield _isolation(cages)
        trials = probes or QemuProbes(config, cages, folder)
        store = image_store(config)
        images = []
        for finding, image in await asyncio.to_thread(lambda: list(check_stored(store, ()))):
            subject = finding.subject.removesuffix(" stored")
            if image is None:
                yield Finding("image", subject, "fault", finding.fault or "")
                continue
            images.append(image)
            yield Finding("image", subject, "yes", f"whole, {image.size / 1_000_000:.0f} MB, {image.digest[:12]}")
        if not images:
            yield Finding("image", str(store.root), "fault", "no image can be used: build one with leveret-image")
        emulated: dict[str, ProbeResult] = {}
        for image in images:
            arch = image.manifest.architecture
            if arch not in emulated:
                result = emulated[arch] = await trials.emulator(image)
                yield _proof("emulator", arch, result, "fault")
        for arch in sorted(_installed() - emulated.keys()):
            yield Finding("emulator", arch, "no", f"qemu-system-{arch} is installed, but there is no image for it")
        host = os.uname().machine
        of_host = next((image for image in images if image.manifest.architecture == host), None)
        if of_host is None:
            yield Finding("kvm", host, "no", "there is no image for this host to try it with")
        elif emulated[host].offered:
            kvm = await trials.kvm(of_host)
            emulated[host] = kvm if kvm.offered else emulated[host]
            yield _proof("kvm", host, kvm, "no")
        for image in images:
            yield await _template(config, cages, image, emulated[image.manifest.architecture])
        allowed = config.allowed
        most = f"a job may ask for {size(allowed.memory_mib)} of memory and {allowed.cpus} virtual processors"
        yield Finding("limits", f"{config.slots} jobs at once", "yes", most)


def _isolation(cages: Cages) -> Finding:
    if cages.refusal:
        return Finding("isolation", "of machines", "fault", cages.refusal)
    left_out = "; ".join(note.removeprefix("isolation: ") for note in cages.notes)
    subject = f"of machines, network {cages.network}"
    return Finding("isolation", subject, "no" if left_out else "yes", left_out or "complete")


def _proof(kind: Literal["emulator", "kvm"], arch: str, result: ProbeResult, otherwise: Verdict) -> Finding:
    return Finding(kind, arch, "yes" if result.offered else otherwise, result.reason, round(result.seconds, 3))


async def _template(config: Config, cages: Cages, image: StoredImage, proof: ProbeResult) -> Finding:
    """Whether guests of `image` go on from a recorded one."""
    subject = f"{image.manifest.name} {image.manifest.architecture}"
    if config.start == "cold":
        return Finding("template", subject, "no", "start is cold: every guest is booted")
    if not proof.offered:
        return Finding("template", subject, "no", "there is no emulator to record it with")
    try:
        spec = machine_spec(config, image, proof.accelerator, cages.network)
        origin = await origin_of(spec, await boot_files(image), image.digest)
    except (ImageError, MachineError) as error:
        return Finding("template", subject, "fault", str(error))
    if (templates_directory(config) / origin.key).exists():
        return Finding("template", subject, "yes", f"recorded, {origin.key[:12]}")
    when = "as soon as the worker runs" if config.templates_ahead else "when a job asks for it"
    return Finding("template", subject, "no", f"not recorded yet: will be {when}")


def _installed() -> set[str]:
    """Architectures that this host has an emulator for."""
    found = set()
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        for path in Path(directory).glob("qemu-system-*"):
            name = path.name.removeprefix("qemu-system-")
            if "-" not in name and shutil.which(path.name):
                found.add(name)
    return found
