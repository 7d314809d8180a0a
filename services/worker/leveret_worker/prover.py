"""What this worker has proved that it can do: looked at again for as long as it lives, so that its offer stays true.

An image is offered while it lies whole in the store and the emulator of its architecture starts; KVM while a guest
really boots under it.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable

import structlog

from leveret_proto.capability import Capabilities, ImageOffer
from leveret_runtime.waits import pause
from leveret_worker.booting import boot_files
from leveret_worker.images import ImageError, ImageStore, StoredImage
from leveret_worker.probes import Probes
from leveret_worker.qemu import Accelerator, ProbeResult

log = structlog.get_logger(__name__)

#: Seconds between looks at the image store: an image that was built or removed needs no restart.
RESCAN = 10.0
#: A beat takes no more.
MOST_NOTES = 64


class Prover:
    """The proofs of one worker. `run` keeps them; everything else only reads them or asks for more."""

    def __init__(
        self,
        store: ImageStore,
        probes: Probes,
        *,
        allowed: Capabilities,
        interval: float,
        rescan: float = RESCAN,
    ) -> None:
        """`allowed`: what is offered whatever is proved. Seconds: `interval` after which everything is proved again,
        `rescan` between looks at the store."""
        self._store = store
        self._probes = probes
        self._allowed = allowed
        self._interval = interval
        self._rescan = rescan
        self._images: list[StoredImage] = []
        #: Digest → why it can't boot; None where it can.
        self._unfit: dict[str, str | None] = {}
        self._emulators: dict[str, ProbeResult] = {}
        self._kvm: dict[str, ProbeResult] = {}
        #: Architecture → what its proofs rest on.
        self._grounds: dict[str, str] = {}
        self._changed: Callable[[], None] = lambda: None
        self.offer = allowed
        #: Rounds of proving begun and done.
        self._begun = 0
        self._done = 0
        self._wanted = asyncio.Event()
        self._round_done = asyncio.Condition()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found out, for people."""
        unfit = [f"image {why}" for image in self._images if (why := self._unfit.get(image.digest))]
        emulators = [f"{arch} by {result}" for arch, result in self._emulators.items()]
        kvm = [str(result) for result in self._kvm.values()]
        nothing = [] if self.offer.images else [f"no image in {self._store.root} can be booted: build one"]
        return (*nothing, *kvm, *emulators, *unfit)[:MOST_NOTES]

    @property
    def proved(self) -> list[StoredImage]:
        """The images that are offered."""
        return [image for image in self._images if self._is_proved(image)]

    def accelerator(self, arch: str) -> Accelerator:
        """What machines of that architecture run under: as the last trial of KVM did, if it came up."""
        proof = self._kvm.get(arch)
        return proof.accelerator if proof is not None and proof.offered else Accelerator.TCG

    def offers_kvm(self, arch: str) -> bool:
        return arch in self.offer.kvm

    async def run(self, changed: Callable[[], None]) -> None:
        """Prove everything now, at every interval and whenever asked; look at the store between. Until cancelled.

        `changed` is called when the offer has changed.
        """
        self._changed = changed
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            anew = self._wanted.is_set() or loop.time() >= due
            if anew:
                self._wanted.clear()
                self._begun += 1
            await self._look(anew)
            if anew:
                due = loop.time() + self._interval
                async with self._round_done:
                    self._done = self._begun
                    self._round_done.notify_all()
            await pause(max(0.0, min(self._rescan, due - loop.time())), self._wanted)

    def prove_soon(self) -> None:
        """Have everything proved again."""
        self._wanted.set()

    async def prove_now(self) -> None:
        """Have everything proved again, and wait until it was. `run` must be running."""
        round_ = self._begun + 1
        self._wanted.set()
        async with self._round_done:
            await self._round_done.wait_for(lambda: self._done >= round_)

    def refute(self, image: StoredImage, why: str) -> None:
        """A build could not use `image`: it is offered no more until everything is proved again."""
        log.error("image can't be used", image=image.manifest.name, digest=image.digest, reason=why)
        self._unfit[image.digest] = why
        self._publish()

    async def _look(self, anew: bool) -> None:
        """Look at the store, and prove what is not proved yet; `anew`: everything."""
        self._images = await asyncio.to_thread(self._store.images)
        for image in self._images:
            if anew or image.digest not in self._unfit:
                self._unfit[image.digest] = await _fault(image)
        for gone in self._unfit.keys() - {image.digest for image in self._images}:
            del self._unfit[gone]
        fit = [image for image in self._images if self._unfit[image.digest] is None]
        lost = self._lost_grounds({image.manifest.architecture for image in fit})
        for arch, image in _one_each(fit).items():
            if anew or arch in lost or arch not in self._emulators:
                await self._prove(self._emulators, arch, image, self._probes.emulator)
        self._publish()
        host = os.uname().machine
        image_of_host = next((image for image in fit if image.manifest.architecture == host), None)
        untried = anew or host in lost or host not in self._kvm
        if image_of_host is not None and self._emulators[host].offered and untried:
            await self._prove(self._kvm, host, image_of_host, self._probes.kvm)
            self._publish()

    def _lost_grounds(self, archs: set[str]) -> set[str]:
        """Those of `archs` whose kernel or emulator is not what it was when it was proved."""
        lost = set()
        for arch in archs:
            found = self._probes.grounds(arch)
            if self._grounds.setdefault(arch, found) != found:
                log.info("kernel or emulator changed, proving anew", architecture=arch)
                self._grounds[arch] = found
                lost.add(arch)
        return lost

    async def _prove(
        self,
        proofs: dict[str, ProbeResult],
        arch: str,
        image: StoredImage,
        probe: Callable[[StoredImage], Awaitable[ProbeResult]],
    ) -> None:
        """Note what `probe` finds. Under load a trial may fail once: what was proved is tried twice before it falls."""
        before = proofs.get(arch)
        found = await probe(image)
        if before is not None and before.offered and not found.offered:
            found = await probe(image)
        if before is None or before.offered != found.offered or before.reason != found.reason:
            log.info("probed", architecture=arch, result=str(found))
        proofs[arch] = found

    def _is_proved(self, image: StoredImage) -> bool:
        return self._unfit.get(image.digest, "") is None and _holds(self._emulators, image.manifest.architecture)

    def _publish(self) -> None:
        """Make the offer from what is proved."""
        images = tuple(
            ImageOffer(arch=image.manifest.architecture, name=image.manifest.name, digest=image.digest)
            for image in self.proved
        )
        archs = {image.arch for image in images}
        kvm = tuple(arch for arch in self._kvm if arch in archs and _holds(self._kvm, arch))
        offer = self._allowed.model_copy(update={"images": images, "kvm": kvm})
        if offer != self.offer:
            self.offer = offer
            self._changed()


def _holds(proofs: dict[str, ProbeResult], arch: str) -> bool:
    return arch in proofs and proofs[arch].offered


def _one_each(images: list[StoredImage]) -> dict[str, StoredImage]:
    """The first image of each architecture."""
    return {image.manifest.architecture: image for image in reversed(images)}


async def _fault(image: StoredImage) -> str | None:
    """Why `image` can't be booted, or None."""
    try:
        await boot_files(image)
    except ImageError as error:
        return str(error)
    return None
