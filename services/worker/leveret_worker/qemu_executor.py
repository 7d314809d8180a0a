"""The `qemu` executor: a fresh virtual machine for each grant, reached over its virtio-serial port."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import structlog

from leveret_guestapi import GuestApiError, GuestClient
from leveret_proto.capability import Capabilities, Requirement
from leveret_proto.messages import Grant
from leveret_worker.booting import boot_files, machine_spec
from leveret_worker.config import Config
from leveret_worker.guests import Guest, Profile, Withdrawn, check, requirement
from leveret_worker.images import ImageError, ImageStore, StoredImage, default_store
from leveret_worker.probes import Probes, QemuProbes
from leveret_worker.prover import Prover
from leveret_worker.qemu import BootFiles, Machine, MachineError, MachineSpec, qemu_user

log = structlog.get_logger(__name__)

#: Boots of a fresh machine before a build is given up: emulators and kernels fail now and then.
BOOTS = 3


class QemuExecutor:
    """Boots stored images, and offers what its prover has proved."""

    def __init__(self, config: Config, probes: Probes | None = None) -> None:
        """`probes`: the trials of this host's emulators and of KVM; without them the real ones."""
        self._config = config
        self._store = ImageStore(config.images) if config.images else default_store()
        self._prover = Prover(
            self._store, probes or QemuProbes(config), tags=config.tags, interval=config.probe_interval
        )

    def offer(self) -> Capabilities:
        return self._prover.offer

    @property
    def notes(self) -> tuple[str, ...]:
        return self._prover.notes

    async def prove(self, changed: Callable[[], None]) -> None:
        await self._prover.run(changed)

    def prove_soon(self) -> None:
        self._prover.prove_soon()

    @asynccontextmanager
    async def guest(self, grant: Grant, folder: Path) -> AsyncIterator[Guest]:
        arch = grant.manifest.arch or os.uname().machine
        try:
            image = self._store.find(grant.manifest.image, arch)
        except ImageError as error:
            raise Withdrawn(str(error)) from error
        needed = requirement(grant.manifest, arch, image.manifest.name)
        try:
            boot = await boot_files(image)
        except ImageError as error:
            self._prover.refute(image, str(error))
            raise Withdrawn(f"image {error}") from error
        async with AsyncExitStack() as machine:
            api, spec = await self._boot(machine, needed, image, boot, folder / "machine")
            about = f"{image.manifest.name} for {arch} ({spec.accelerator}), image {image.digest[:12]}"
            yield Guest(api, _profile(image), about)

    async def _boot(
        self, running: AsyncExitStack, needed: Requirement, image: StoredImage, boot: BootFiles, directory: Path
    ) -> tuple[GuestClient, MachineSpec]:
        """Boot a machine that lasts as long as `running`. One that does not come up is given up for a fresh one.

        Where KVM is offered it is proved again first: it may be what failed.
        """
        limit = self._config.boot_limit
        for boots_left in reversed(range(BOOTS)):
            check(needed, self.offer())  # it may have been withdrawn since, and KVM is not to be had without KVM
            spec = machine_spec(self._config, image, self._prover.accelerator(needed.arch))
            try:
                async with AsyncExitStack() as trial:
                    started = Machine.start(spec, boot, directory, user=qemu_user(spec.accelerator))
                    machine = await trial.enter_async_context(started)
                    await machine.wait_port_open(limit)
                    client = GuestClient.connect(machine.guest_socket, hello_timeout=limit)
                    api = await trial.enter_async_context(client)
                    running.push_async_exit(trial.pop_all())
                    return api, spec
            except (MachineError, GuestApiError) as error:
                log.warning("the guest did not come up", reason=str(error), boots_left=boots_left)
                if self._prover.offers_kvm(needed.arch):
                    await self._prover.prove_now()
                    check(needed, self.offer())
                if not boots_left:
                    raise GuestApiError(f"no guest came up in {BOOTS} boots: {error}") from error
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
