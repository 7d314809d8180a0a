"""Starting a guest for a build: restored from a template where that can be had, else booted.

Either way it comes out with the right time, fresh randomness and a name of its own.
"""

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import structlog

from leveret_guestapi import GuestApiError, GuestClient
from leveret_proto.capability import Requirement
from leveret_worker.booting import boot_files, machine_spec, settle
from leveret_worker.config import Config
from leveret_worker.images import StoredImage
from leveret_worker.qemu import (
    Accelerator,
    BootFiles,
    Cage,
    Cages,
    Machine,
    MachineError,
    MachineSpec,
    Origin,
    RecordedFiles,
    Templates,
    origin_of,
    record,
    restored,
)
from leveret_worker.watch import watched

log = structlog.get_logger(__name__)

#: Seconds in which a cut connection to a guest's port has to be there again.
RECONNECT_LIMIT = 10.0


@dataclass(frozen=True)
class Wanted:
    """What to start: a machine of this shape from this image."""

    image: StoredImage
    boot: BootFiles
    spec: MachineSpec

    async def origin(self) -> Origin:
        """What a template of it depends on. Raises MachineError."""
        return await origin_of(self.spec, self.boot, self.image.digest)


@dataclass(frozen=True)
class Started:
    """A guest that answers."""

    api: GuestClient
    spec: MachineSpec
    how: str
    """Where it came from, in words."""


class Starter:
    """Starts machines up to their agents' answer. Who calls holds a lease on the image (`ImageStore.using`)."""

    def __init__(self, config: Config, cages: Cages, templates: Templates | None) -> None:
        """`templates`: None where all machines are booted."""
        self._config = config
        self._cages = cages
        self._templates = templates

    async def start(self, running: AsyncExitStack, wanted: Wanted, directory: Path, host_name: str) -> Started:
        """A machine that lasts as long as `running`. `directory` is for its files and must not exist.

        Raises:
            MachineError, GuestApiError: it did not come up.
        """
        return await self._restore(running, wanted, directory, host_name) or await self._boot(
            running, wanted, directory, host_name
        )

    def spec(self, image: StoredImage, accelerator: Accelerator, needed: Requirement | None = None) -> MachineSpec:
        """The machine that guests of `image` get here: what `needed` asks for, else what is usual."""
        return machine_spec(self._config, image, accelerator, self._cages.network, needed)

    async def record_ahead(self, image: StoredImage, accelerator: Accelerator) -> None:
        """See to it that there is a template of the usual machine. Where there can't be one, that is logged.

        Raises:
            ImageError, MachineError: the image can't be used, or there is no emulator.
        """
        wanted = Wanted(image, await boot_files(image), self.spec(image, accelerator))
        if self._templates is not None:
            origin = await wanted.origin()
            await self._templates.prepare(origin, lambda work: self._record(wanted, work, background=True))

    async def _boot(self, running: AsyncExitStack, wanted: Wanted, directory: Path, host_name: str) -> Started:
        limit = self._config.boot_limit
        async with AsyncExitStack() as trial:
            cage = await trial.enter_async_context(self._cage(host_name, wanted))
            machine = await trial.enter_async_context(Machine.start(wanted.spec, wanted.boot, directory, cage=cage))
            api = await self._meet(trial, machine, limit, host_name)
            running.push_async_exit(trial.pop_all())
        return Started(api, wanted.spec, "booted")

    async def _restore(
        self, running: AsyncExitStack, wanted: Wanted, directory: Path, host_name: str
    ) -> Started | None:
        """Go on from a template; None where there is none, or it did not come up and was thrown away."""
        if self._templates is None:
            return None
        origin = await wanted.origin()
        limit = self._config.restore_limit
        async with AsyncExitStack() as trial:
            using = self._templates.using(origin, lambda work: self._record(wanted, work))
            template = await trial.enter_async_context(using)
            if template is None:
                return None
            try:
                async with asyncio.timeout(limit):
                    cage = await trial.enter_async_context(self._cage(host_name, wanted))
                    machine = await trial.enter_async_context(
                        restored(wanted.spec, wanted.boot, template, directory, cage=cage)
                    )
                    api = await self._meet(trial, machine, limit, host_name)
            except (MachineError, GuestApiError) as error:
                why = str(error)
            except TimeoutError:
                why = f"it did not answer within {limit:g} s"
            else:
                self._templates.succeeded(origin)
                running.push_async_exit(trial.pop_all())
                return Started(api, wanted.spec, "restored from a template")
        await self._templates.discard(origin, f"a machine could not go on from it: {why}")
        return None

    async def _meet(self, running: AsyncExitStack, machine: Machine, limit: float, host_name: str) -> GuestClient:
        """Say hello to the machine's agent, and tell it what no guest may share with another."""
        await machine.wait_port_open(limit)
        silence = self._config.guest_silence_limit
        client = GuestClient.connect(
            machine.guest_socket,
            hello_timeout=limit,
            operation_limit=self._config.guest_answer_limit,
            beat_interval=silence / 6,
            beat_limit=silence,
            reconnect_limit=RECONNECT_LIMIT,
        )
        api = await running.enter_async_context(client)
        await running.enter_async_context(watched(api, machine))
        await api.sync_clock()
        await api.set_identity(host_name=host_name, machine_id=uuid4().hex)
        return api

    async def _record(self, wanted: Wanted, work: Path, *, background: bool = False) -> RecordedFiles:
        """Record a template's machine; see `record`."""
        limit = self._config.boot_limit
        try:
            async with self._cage("template", wanted) as cage:
                return await record(
                    wanted.spec,
                    wanted.boot,
                    work,
                    lambda guest_socket: settle(guest_socket, limit),
                    cage=cage,
                    limit=limit,
                    background=background,
                )
        except GuestApiError as error:
            raise MachineError(f"the guest to record did not answer: {error}") from error

    def _cage(self, name: str, wanted: Wanted) -> AbstractAsyncContextManager[Cage]:
        """A cage for the machine, named after what it is for."""
        return self._cages.cage(f"{name}-{uuid4().hex[:8]}", wanted.spec, self._cages.network)
