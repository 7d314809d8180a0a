"""Starting QEMU: what it uses is opened here and handed over as file descriptors."""

import asyncio
import contextlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from leveret_worker.qemu.arguments import Descriptors, MachineSpec, MemoryFile, qemu_arguments
from leveret_worker.qemu.cage import Cage
from leveret_worker.qemu.confinement import leashed
from leveret_worker.qemu.errors import MachineError
from leveret_worker.qemu.processes import finish

DISK_LIMIT = 10.0
"""Seconds making an empty overlay disk may take."""


@dataclass(frozen=True)
class BootFiles:
    """What a machine boots. The files must be readable for everyone, not their directories."""

    kernel: Path
    initrd: Path
    disk: Path
    """qcow2; used as a backing file, never written."""


@dataclass(frozen=True)
class Launch:
    """One start of QEMU: all that it uses."""

    spec: MachineSpec
    kernel: Path
    initrd: Path
    disks: tuple[Path, ...]
    """qcow2 files, each over the one before it; the last is this machine's own."""
    guest_socket: Path
    """Where to make the socket that leads to the agent."""
    memory: MemoryFile | None
    background: bool
    """Whether it must stand back behind everything else on this host."""

    async def start(self, cage: Cage) -> tuple[asyncio.subprocess.Process, socket.socket]:
        """Start QEMU in `cage`; gives the process and our end of its monitor. Raises MachineError."""
        with contextlib.ExitStack() as opened:
            control, monitor = socket.socketpair()
            opened.callback(monitor.close)
            try:
                descriptors = self._open(opened, monitor)
                words = qemu_arguments(self.spec, descriptors)
                process = await asyncio.create_subprocess_exec(
                    *cage.command(["nice", "-n", "19", *words] if self.background else words),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    pass_fds=(*descriptors.all(), *cage.descriptors),
                    cwd="/",
                )
            except OSError as error:
                control.close()
                raise MachineError(f"the machine can't be started: {error}") from error
            except BaseException:
                control.close()
                raise
            return process, control

    def _open(self, opened: contextlib.ExitStack, monitor: socket.socket) -> Descriptors:
        """Open everything, until `opened` is closed."""

        def descriptor(path: Path, flags: int) -> int:
            number = os.open(path, flags | os.O_CLOEXEC)
            opened.callback(os.close, number)
            return number

        listening = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listening.bind(str(self.guest_socket))
        listening.listen(1)
        *below, own = self.disks
        return Descriptors(
            kernel=descriptor(self.kernel, os.O_RDONLY),
            initrd=descriptor(self.initrd, os.O_RDONLY),
            disks=(*(descriptor(path, os.O_RDONLY) for path in below), descriptor(own, os.O_RDWR)),
            guest=listening.fileno(),
            monitor=monitor.fileno(),
            memory=self.memory,
        )


async def make_overlay(disk: Path, overlay: Path) -> None:
    """Make an empty qcow2 over `disk`. Raises MachineError."""
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(disk.absolute()), "-F", "qcow2", str(overlay)]
    try:
        finished = await finish(leashed(command), limit=DISK_LIMIT)
    except FileNotFoundError as error:
        raise MachineError(f"{error.filename} is not installed: it is in the package util-linux") from error
    except TimeoutError as error:
        raise MachineError(f"the machine's disk was not made within {DISK_LIMIT:g} s") from error
    if finished.status != 0:
        raise MachineError(f"the machine's disk can't be made: {finished.errors}")
