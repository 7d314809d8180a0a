"""The `qemu` executor: a fresh virtual machine for each grant, reached over its virtio-serial port."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import structlog

from leveret_guestapi import GuestApiError
from leveret_proto.capability import Capabilities, Requirement, requirement
from leveret_proto.messages import Grant
from leveret_worker.booting import boot_files
from leveret_worker.config import Config
from leveret_worker.guests import Guest, Profile, Withdrawn, check
from leveret_worker.images import ImageError, StoredImage
from leveret_worker.keeper import Keeper
from leveret_worker.metrics import STARTS_FAILED
from leveret_worker.probes import Probes, QemuProbes
from leveret_worker.prover import MOST_NOTES, Prover
from leveret_worker.qemu import BootFiles, Cages, MachineError
from leveret_worker.starting import Started, Starter, Wanted
from leveret_worker.stores import image_store, templates

log = structlog.get_logger(__name__)

#: Starts of a fresh machine before a build is given up: emulators and kernels fail now and then.
STARTS = 3


class QemuExecutor:
    """Starts machines from stored images, and offers what its prover has proved."""

    def __init__(self, config: Config, cages: Cages, probes: Probes | None = None) -> None:
        """`cages`: where its machines run; `probes`: the trials of emulators and KVM, without them the real ones."""
        self._config = config
        self._cages = cages
        self._store = image_store(config)
        self._prover = Prover(
            self._store, probes or QemuProbes(config, cages), allowed=config.allowed, interval=config.probe_interval
        )
        self._templates = templates(config) if config.start == "template" else None
        self._starter = Starter(config, cages, self._templates)

    def offer(self) -> Capabilities:
        return self._config.allowed if self._cages.refusal else self._prover.offer

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self._cages.notes, *self._prover.notes)[:MOST_NOTES]

    async def prove(self, changed: Callable[[], None]) -> None:
        if self._templates is None:
            await self._prover.run(changed)
            return
        keeper = Keeper(
            self._store,
            self._prover,
            self._starter,
            self._templates,
            ahead=self._config.templates_ahead,
            interval=self._config.probe_interval,
        )

        def both() -> None:
            changed()
            keeper.look()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keeper.run())
            await self._prover.run(both)

    def prove_soon(self) -> None:
        self._prover.prove_soon()

    @asynccontextmanager
    async def guest(self, grant: Grant, folder: Path) -> AsyncIterator[Guest]:
        arch = grant.manifest.arch or os.uname().machine
        async with AsyncExitStack() as running:
            try:
                image = self._store.find(grant.manifest.image, arch)
                running.enter_context(self._store.using(image))
            except ImageError as error:
                raise Withdrawn(str(error)) from error
            needed = requirement(grant.manifest, arch, image.manifest.name)
            try:
                boot = await boot_files(image)
            except ImageError as error:
                self._prover.refute(image, str(error))
                raise Withdrawn(f"image {error}") from error
            host_name = f"job-{grant.facts.job}"
            started = await self._start(running, needed, image, boot, folder / "machine", host_name)
            accelerator = started.spec.accelerator
            about = f"{image.manifest.name} for {arch} ({accelerator}), image {image.digest[:12]}, {started.how}"
            yield Guest(started.api, _profile(image), about, "booted" if started.how == "booted" else "restored")

    async def _start(
        self,
        running: AsyncExitStack,
        needed: Requirement,
        image: StoredImage,
        boot: BootFiles,
        directory: Path,
        host_name: str,
    ) -> Started:
        """Start a machine that lasts as long as `running`. One that does not come up is given up for a fresh one.

        Where KVM is offered it is proved again first: it may be what failed.
        """
        for starts_left in reversed(range(STARTS)):
            check(needed, self.offer())  # it may have been withdrawn since, and KVM is not to be had without KVM
            spec = self._starter.spec(image, self._prover.accelerator(needed.arch), needed)
            try:
                return await self._starter.start(running, Wanted(image, boot, spec), directory, host_name)
            except (MachineError, GuestApiError) as error:
                STARTS_FAILED.inc()
                log.warning("the guest did not come up", reason=str(error), starts_left=starts_left)
                if self._prover.offers_kvm(needed.arch):
                    await self._prover.prove_now()
                    check(needed, self.offer())
                if not starts_left:
                    raise GuestApiError(f"no guest came up in {STARTS} starts: {error}") from error
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
