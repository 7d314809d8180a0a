"""Cages: what each QEMU is started in, so that a guest that breaks out of it has gained as little as possible.

What a cage is against, and what proves it, stands in docs/threat-model.md.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from leveret_worker.qemu.arguments import TRANSLATED_MIB, Accelerator, MachineSpec, Network
from leveret_worker.qemu.cgroup import Limits
from leveret_worker.qemu.confinement import (
    KVM_DEVICE,
    QemuUser,
    bounded,
    confined,
    joined,
    may_open,
    qemu_user,
    secluded,
)
from leveret_worker.qemu.egress import Egress, NoEgressError
from leveret_worker.qemu.errors import MachineError
from leveret_worker.qemu.groups import Groups, NoGroupsError
from leveret_worker.qemu.network import RESOLVER4
from leveret_worker.qemu.processes import finish

log = structlog.get_logger(__name__)

MIB = 1024 * 1024
_OVERHEAD_MIB = 256
"""Memory of QEMU itself beside the guest's and, under TCG, translated code."""
_TASKS = 128
"""Threads and processes of one machine on the host, its virtual processors apart: QEMU's thread pool has up to 64."""
_TRIAL_LIMIT = 10.0
_EGRESS_LIMIT = 10.0


@dataclass(frozen=True)
class CageRules:
    """What a worker's cages have to be like."""

    network: Network = Network.NONE
    """What guests reach."""
    required: bool = False
    """Whether a host that can't do all of it gets no cage at all; else `notes` say what is left out."""
    disk_mib: int = 16 * 1024
    """The most a machine may write to any one file, its overlay disk above all."""


@dataclass(frozen=True)
class Cage:
    """The confinement of one QEMU."""

    _user: QemuUser | None
    _file_bytes: int
    _groups: tuple[Path, ...]
    _secluded: bool
    _network: Network
    _egress: Egress | None
    _devices: tuple[Path, ...]
    _resolver: int | None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What the started process must inherit for the cage's own sake. Good for one start."""
        return () if self._resolver is None else (self._resolver,)

    def command(self, words: Sequence[str]) -> list[str]:
        """The command line that runs `words` in this cage.

        Inherited descriptors pass through. Killing the process that it starts ends everything in the cage.
        Raises MachineError.
        """
        command = list(words)
        if self._secluded:
            own_network = self._network is Network.NONE
            command = secluded(command, own_network=own_network, devices=self._devices, resolver=self._resolver)
        command = confined(command, self._user)
        if self._egress is not None:
            try:
                command = self._egress.inside(command)
            except NoEgressError as error:
                raise MachineError(str(error)) from error
        command = bounded(command, self._file_bytes)
        return joined(command, self._groups) if self._groups else command

    def may_open(self, device: Path) -> bool:
        """Whether what runs in the cage may read and write `device`."""
        return may_open(device, self._user)


class Cages:
    """Makes the cages of one worker. A context: opened it has found out what this host allows."""

    def __init__(self, rules: CageRules | None = None) -> None:
        self._rules = rules or CageRules()
        self._open = contextlib.AsyncExitStack()
        self._secluded = False
        self._groups: Groups | None = None
        self._egress: Egress | None = None
        self._faults: list[str] = []

    @property
    def notes(self) -> tuple[str, ...]:
        """What this host can't do, for people."""
        faults = list(self._faults)
        if self._egress is not None and self._egress.fault is not None:
            faults.append(self._egress.fault)
        if self.network is not self._rules.network:
            faults.append(f"guests have network {self.network} instead of {self._rules.network}")
        return tuple(f"isolation: {fault}" for fault in faults)

    @property
    def refusal(self) -> str | None:
        """Why there is no cage to be had here; None where there is."""
        never_out = self._egress is not None and not self._egress.was_connected
        return "; ".join(self.notes) if self._rules.required and (self._faults or never_out) else None

    @property
    def network(self) -> Network:
        """What guests reach here: what the rules say, or nothing where they can't be kept to that."""
        if self._rules.network is Network.EGRESS and self._egress is None:
            return Network.NONE
        return self._rules.network

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as opening:
            await self._try_namespaces()
            await self._open_groups(opening)
            if self._rules.network is Network.EGRESS:
                await self._open_egress(opening)
            self._open = opening.pop_all()
        for fault in self.notes:
            log.warning("isolation", reason=fault)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not told of the body's error, which a task group would wrap: callers catch it by its type.
        await self._open.aclose()

    @contextlib.asynccontextmanager
    async def cage(self, name: str, spec: MachineSpec, network: Network) -> AsyncIterator[Cage]:
        """A cage for one machine.

        Args:
            name: unique among this worker's cages of the moment; letters, digits and hyphens.
            spec: the machine; its limits follow from it.
            network: where its network card leads, if it has one.

        Raises:
            MachineError: there is none to be had.
        """
        if self.refusal is not None:
            raise MachineError(self.refusal)
        if network is Network.EGRESS and self._egress is None:
            raise MachineError("this worker has no egress to give to a machine")
        async with contextlib.AsyncExitStack() as made:
            groups: tuple[Path, ...] = ()
            try:
                if self._groups is not None:
                    groups = await made.enter_async_context(self._groups.group(name, machine_limits(spec)))
                if network is Network.EGRESS and self._egress is not None:
                    await self._egress.refresh()
            except (OSError, TimeoutError, NoEgressError) as error:
                raise MachineError(f"the machine can't be confined: {error}") from error
            resolver = _resolver(network) if self._secluded and network is not Network.NONE else None
            if resolver is not None:
                made.callback(os.close, resolver)
            yield Cage(
                qemu_user(spec.accelerator),
                self._rules.disk_mib * MIB,
                groups,
                self._secluded,
                network,
                self._egress if network is Network.EGRESS else None,
                (KVM_DEVICE,) if spec.accelerator is Accelerator.KVM else (),
                resolver,
            )

    async def _try_namespaces(self) -> None:
        command = confined(secluded(["true"], own_network=True), qemu_user(Accelerator.TCG))
        try:
            finished = await finish(command, limit=_TRIAL_LIMIT)
        except TimeoutError:
            fault = f"bwrap took longer than {_TRIAL_LIMIT:g} s"
        except OSError as error:
            fault = str(error)
        else:
            self._secluded = finished.status == 0
            fault = finished.errors
        if not self._secluded:
            self._faults.append(f"no namespaces for machines (needs bubblewrap, and user namespaces allowed): {fault}")

    async def _open_groups(self, opening: contextlib.AsyncExitStack) -> None:
        try:
            self._groups = await asyncio.to_thread(Groups.open)
        except NoGroupsError as error:
            self._faults.append(f"no limits on machines: {error}")
        else:
            opening.callback(self._groups.close)

    async def _open_egress(self, opening: contextlib.AsyncExitStack) -> None:
        if not self._secluded:
            return
        egress = Egress(qemu_user(Accelerator.TCG))
        tasks = await opening.enter_async_context(asyncio.TaskGroup())
        keeping = tasks.create_task(egress.keep())
        opening.callback(keeping.cancel)
        await egress.told.wait()
        if egress.fault is None or self._rules.required:
            self._egress = egress
            return
        self._faults.append(egress.fault)
        keeping.cancel()


def machine_limits(spec: MachineSpec) -> Limits:
    """The most a machine may take from its host."""
    translated = TRANSLATED_MIB if spec.accelerator is Accelerator.TCG else 0
    return Limits(
        # The guest's memory counts twice: a restored machine maps its template's privately, and where that has a hole
        # the kernel first fills it (with a page that the next machine shares, but this one is charged for) and then
        # copies it. A guest that used all of its memory would be killed otherwise.
        memory=(2 * spec.memory_mib + _OVERHEAD_MIB + translated) * MIB,
        # Its virtual processors, and half a processor for QEMU's own work beside them.
        cpus=spec.vcpus + 0.5,
        weight=spec.vcpus,
        tasks=_TASKS + spec.vcpus,
    )


def _resolver(network: Network) -> int:
    """A descriptor from which the resolv.conf of a machine's QEMU is read: whom its guest's questions go to."""
    text = f"nameserver {RESOLVER4}\n" if network is Network.EGRESS else host_resolver(Path("/etc/resolv.conf"))
    number = os.memfd_create("resolv.conf", os.MFD_CLOEXEC)
    os.write(number, text.encode())
    os.lseek(number, 0, os.SEEK_SET)
    return number


def host_resolver(path: Path) -> str:
    """The host's own resolv.conf. A host without one asks 127.0.0.1 (resolv.conf(5)), and so does QEMU then."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
