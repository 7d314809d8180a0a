"""Trials whose outcome a test chooses, and images that need not boot: for what follows from a proof."""

import asyncio
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from leveret_worker.images import ImageStore, StoredImage
from leveret_worker.images.model import recipes_directory
from leveret_worker.images.recipes import load_recipe
from leveret_worker.images.store import ImageManifest
from leveret_worker.prover import Prover
from leveret_worker.qemu import Accelerator, ProbeResult

ARCH = platform.machine()
LIMIT = 20.0


@dataclass
class ChosenProbes:
    """Each trial ends as `emulators` and `virtualised` say then, but for those in `slips`, which fail.

    What KVM is said to have booted is a machine under TCG, so that a job that asks for KVM runs on any host.
    """

    emulators: bool = True
    virtualised: bool = True
    slips: int = 0
    #: Trials of KVM so far.
    trials: int = 0
    kernel: str = "one"

    def grounds(self, arch: str) -> str:
        return f"{arch} {self.kernel}"

    async def emulator(self, image: StoredImage) -> ProbeResult:
        return ProbeResult(Accelerator.TCG, self.emulators, "chosen by the test")

    async def kvm(self, image: StoredImage) -> ProbeResult:
        self.trials += 1
        works = self.virtualised
        if self.slips:
            self.slips -= 1
            works = False
        return ProbeResult(Accelerator.TCG, works, "chosen by the test")


@dataclass
class Watched:
    """A prover, and a wait for what it offers."""

    prover: Prover
    changes: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def changed(self) -> None:
        self.changes += 1
        self._news.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until `holds` after a change of the offer."""
        async with asyncio.timeout(LIMIT):
            while not holds():
                self._news.clear()
                await self._news.wait()

    @property
    def names(self) -> list[str]:
        return [image.name for image in self.prover.offer.images]


def add_image(store: ImageStore, name: str, content: bytes = b"disk") -> StoredImage:
    """Put an image into the store that is whole, but would boot nowhere."""
    work = store.work_directory(name, ARCH)
    (work / "modules").mkdir(parents=True)
    (work / "root.qcow2").write_bytes(content)
    (work / "kernel").write_bytes(b"kernel")
    (work / "busybox").write_bytes(b"busybox")
    manifest = ImageManifest(
        name=name,
        architecture=ARCH,
        made=datetime.now(UTC),
        recipe_digest="0" * 64,
        description=load_recipe(recipes_directory(), "test/minimal").description,
        files=[],
    )
    return store.add(work, manifest)


def remove_image(store: ImageStore, name: str) -> None:
    """Take the name away, as an operator does."""
    pointer: Path = store.root / "names" / name / ARCH
    pointer.unlink()
