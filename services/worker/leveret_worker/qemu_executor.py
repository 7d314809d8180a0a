"""The `qemu` executor: a fresh virtual machine for each grant, reached over its virtio-serial port."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import structlog

from leveret_guestapi import GuestApiError, GuestClient, agent_source
from leveret_proto.capability import Capabilities, ImageOffer
from leveret_proto.messages import Grant
from leveret_worker.config import Config
from leveret_worker.guests import Guest, NoSuchImage, Profile
from leveret_worker.images import ImageError, ImageStore, StoredImage, build_initrd, default_store
from leveret_worker.qemu import (
    Accelerator,
    BootFiles,
    Machine,
    MachineError,
    MachineSpec,
    Network,
    probe_emulator,
    probe_kvm,
    qemu_user,
)

log = structlog.get_logger(__name__)

#: Seconds between looks at the image store: an image that has been built is offered without a restart.
RESCAN = 10.0
#: Boots of a fresh machine before a build is given up: emulators and kernels fail now and then.
BOOTS = 3


class QemuExecutor:
    """Boots stored images. Offers an image once its emulator started, KVM once a guest has really booted under it."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._store = ImageStore(config.images) if config.images else default_store()
        self._emulators: dict[str, bool] = {}
        self._kvm: dict[str, bool] = {}
        self._notes: dict[str, str] = {}
        self._offer = Capabilities(tags=config.tags)

    def offer(self) -> Capabilities:
        return self._offer

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self._notes.values())

    async def prove(self, changed: Callable[[], None]) -> None:
        """Prove each image's emulator, then KVM; go on looking for new images. Runs until cancelled."""
        while True:
            images = await asyncio.to_thread(self._store.images)
            await self._prove_emulators(images)
            self._publish(images, changed)
            if await self._prove_kvm(images):
                self._publish(images, changed)
            await asyncio.sleep(RESCAN)

    def _publish(self, images: list[StoredImage], changed: Callable[[], None]) -> None:
        offers = tuple(
            ImageOffer(arch=image.manifest.architecture, name=image.manifest.name, digest=image.digest)
            for image in images
            if self._emulators.get(image.manifest.architecture)
        )
        kvm = tuple(arch for arch, proved in self._kvm.items() if proved)
        offer = Capabilities(images=offers, kvm=kvm, tags=self._config.tags)
        if not offers:
            self._notes["images"] = f"no image in {self._store.root}: build one"
        else:
            self._notes.pop("images", None)
        if offer != self._offer:
            self._offer = offer
            changed()

    async def _prove_emulators(self, images: list[StoredImage]) -> None:
        for image in images:
            arch = image.manifest.architecture
            if arch not in self._emulators:
                result = await probe_emulator(self._spec(image), user=qemu_user(Accelerator.TCG))
                self._note(f"emulator {arch}", f"{arch} by {result}")
                self._emulators[arch] = result.offered

    async def _prove_kvm(self, images: list[StoredImage]) -> bool:
        """Prove KVM once, with the first image of this host's architecture; say whether anything was learnt."""
        host = os.uname().machine
        image = next((image for image in images if image.manifest.architecture == host), None)
        if image is None or host in self._kvm or not self._emulators.get(host):
            return False
        folder = self._config.spool / "run" / "kvm-probe"
        boot = await self._boot_files(image)
        result = await probe_kvm(
            self._spec(image), boot, folder, _hello, user=qemu_user(Accelerator.KVM), deadline=self._config.probe_limit
        )
        self._note("kvm", str(result))
        self._kvm[host] = result.offered
        return result.offered

    def _note(self, key: str, text: str) -> None:
        self._notes[key] = text
        log.info("probed", result=text)

    def _spec(self, image: StoredImage) -> MachineSpec:
        arch = image.manifest.architecture
        return MachineSpec(
            architecture=arch,
            machine=image.architecture.machine,
            cpu=image.architecture.cpu,
            console=image.architecture.console,
            accelerator=Accelerator.KVM if self._kvm.get(arch) else Accelerator.TCG,
            memory_mib=self._config.memory_mib,
            vcpus=self._config.cpus,
            network=Network(self._config.network),
        )

    async def _boot_files(self, image: StoredImage) -> BootFiles:
        initrd = await asyncio.to_thread(build_initrd, image, agent_source())
        return BootFiles(kernel=image.kernel, initrd=initrd, disk=image.disk)

    @asynccontextmanager
    async def guest(self, grant: Grant, folder: Path) -> AsyncIterator[Guest]:
        manifest = grant.manifest
        try:
            image = self._store.find(manifest.image, manifest.arch or os.uname().machine)
            boot = await self._boot_files(image)
        except ImageError as error:
            raise NoSuchImage(str(error)) from error
        spec = self._spec(image)
        about = f"{image.manifest.name} for {spec.architecture} ({spec.accelerator}), image {image.digest[:12]}"
        async with AsyncExitStack() as machine:
            api = await self._boot(machine, spec, boot, folder / "machine")
            yield Guest(api, _profile(image), about)

    async def _boot(self, running: AsyncExitStack, spec: MachineSpec, boot: BootFiles, directory: Path) -> GuestClient:
        """Boot a machine that lasts as long as `running`. One that does not come up is given up for a fresh one."""
        limit = self._config.boot_limit
        for boots_left in reversed(range(BOOTS)):
            try:
                async with AsyncExitStack() as trial:
                    started = Machine.start(spec, boot, directory, user=qemu_user(spec.accelerator))
                    machine = await trial.enter_async_context(started)
                    await machine.wait_port_open(limit)
                    client = GuestClient.connect(machine.guest_socket, hello_timeout=limit)
                    api = await trial.enter_async_context(client)
                    running.push_async_exit(trial.pop_all())
                    return api
            except (MachineError, GuestApiError) as error:
                if not boots_left:
                    raise GuestApiError(f"no guest came up in {BOOTS} boots: {error}") from error
                log.warning("the guest did not come up, booting another", reason=str(error))
        raise AssertionError("unreachable")


def _profile(image: StoredImage) -> Profile:
    guest = image.description.guest
    return Profile(
        user=guest.user,
        home=guest.home,
        preamble=guest.preamble,
        environment=dict(guest.environment),
        install_packages=guest.install_packages,
        add_repository=guest.add_repository,
        version_control=tuple(guest.version_control),
    )


async def _hello(path: Path) -> None:
    async with GuestClient.connect(path, hello_timeout=60.0):
        pass  # it answered; the caller sets the limit
