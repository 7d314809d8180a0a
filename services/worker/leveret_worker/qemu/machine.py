"""A machine from start to end: its directory, its disk, its process.

Whatever happens inside the context, QEMU is dead and the directory gone after it.
"""

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

from leveret_worker.qemu.arguments import PORT_ID, MachineSpec, MemoryFile
from leveret_worker.qemu.cage import Cage
from leveret_worker.qemu.console import BoundedText
from leveret_worker.qemu.errors import MachineError
from leveret_worker.qemu.launch import BootFiles, Launch, make_overlay
from leveret_worker.qemu.processes import bury, kill_switch
from leveret_worker.qemu.qmp import Monitor

START_LIMIT = 15.0
"""Seconds QEMU has until it answers on its monitor (not until the guest has booted)."""


class Machine:
    """A running QEMU. Made by `Machine.start`."""

    def __init__(
        self, process: asyncio.subprocess.Process, kill: Callable[[], None], disk: Path, guest_socket: Path
    ) -> None:
        self.pid = process.pid
        self.kill = kill
        """Ends QEMU at once."""
        self.disk = disk
        """What it writes: a qcow2 over what it boots."""
        self.guest_socket = guest_socket
        """Connect here, from this process, to talk to the agent: one connection at a time."""
        self.console = BoundedText()
        """What the guest wrote to its serial console."""
        self.messages = BoundedText()
        """What QEMU itself wrote to standard error."""
        self._process = process
        self._monitor: Monitor | None = None
        self._port_open = asyncio.Event()
        self._port_closed = asyncio.Event()
        self._migrated = asyncio.Event()
        self._migration = ""

    @classmethod
    @contextlib.asynccontextmanager
    async def start(
        cls,
        spec: MachineSpec,
        boot: BootFiles,
        directory: Path,
        *,
        cage: Cage,
        layer: Path | None = None,
        memory: MemoryFile | None = None,
        background: bool = False,
    ) -> AsyncIterator[Self]:
        """Start a machine; it runs as long as the context.

        Args:
            spec: how it looks.
            boot: what it boots.
            directory: for its overlay disk and socket; made here (it must not exist), removed at the end.
            cage: what QEMU is started in.
            layer: what lies over the disk of `boot`, and is not written either.
            memory: where its memory is recorded, or was by another machine; see template.py.
            background: let everything else on this host go first.

        Raises:
            MachineError: QEMU or its disk can't be started. What the body raises comes out as it is.
        """
        directory.mkdir(mode=0o700, parents=True)
        reach = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # Through the descriptor, since a socket's own path may have 107 bytes at most (unix(7)).
        guest_socket = Path(f"/proc/self/fd/{reach}/guest.socket")
        try:
            overlay = directory / "overlay.qcow2"
            below = (boot.disk,) if layer is None else (boot.disk, layer)
            await make_overlay(below[-1], overlay)
            disks = (*below, overlay)
            launch = Launch(spec, boot.kernel, boot.initrd, disks, guest_socket, memory, background)
            process, control = await launch.start(cage)
            with kill_switch(process) as kill:
                async with cls(process, kill, overlay, guest_socket)._running(control) as machine:
                    yield machine
        finally:
            os.close(reach)
            shutil.rmtree(directory)

    @contextlib.asynccontextmanager
    async def _running(self, control: socket.socket) -> AsyncIterator[Self]:
        """Look after the process; at the end kill and bury it."""
        failure: Exception | None = None
        assert self._process.stdout is not None and self._process.stderr is not None
        try:
            self._monitor = await Monitor.over(control, self._on_event)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._monitor.run())
                    tasks.create_task(self.console.fill_from(self._process.stdout))
                    tasks.create_task(self.messages.fill_from(self._process.stderr))
                    tasks.create_task(self._watch())
                    try:
                        await self._negotiate()
                        yield self
                    except Exception as error:
                        # Raised again below: a task group would wrap it, and callers catch it by its type.
                        failure = error
                    finally:
                        self.kill()
            finally:
                await self._monitor.close()
        finally:
            control.close()
            self.kill()
            await bury(self._process)
        try:
            if failure is not None:
                raise failure
        finally:
            failure = None  # an exception holds this frame, which is not to hold it

    @property
    def exit_status(self) -> int | None:
        """QEMU's; None while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait until QEMU has ended by itself (the guest powered off, panicked or rebooted); gives its exit status."""
        return await self._process.wait()

    async def wait_port_open(self, timeout: float) -> None:
        """Wait until the guest has opened the agent's port: what is written to it before may be lost.

        Raises:
            MachineError: the machine ended first, or it took longer than `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._port_open.wait()
        except TimeoutError as error:
            raise MachineError(self.describe(f"no agent opened its port within {timeout:g} s")) from error
        if self._process.returncode is not None:
            raise MachineError(self.describe("the machine ended before its agent was there"))

    async def wait_port_closed(self) -> None:
        """Wait until the guest has closed the agent's port (no end of file tells it), or the machine ended."""
        await self._port_closed.wait()

    async def wait_migrated(self, timeout: float) -> None:
        """Wait until the device state has left or arrived (QEMU's event MIGRATION, which is to be switched on).

        Raises:
            MachineError: that failed, the machine ended, or it took longer than `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._migrated.wait()
        except TimeoutError as error:
            raise MachineError(self.describe(f"the device state did not pass within {timeout:g} s")) from error
        if self._migration != "completed":
            raise MachineError(self.describe(f"passing the device state: {self._migration or 'QEMU ended'}"))

    async def execute(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        timeout: float = 10.0,
        descriptor: int | None = None,
    ) -> Any:
        """Run a QMP command; see `Monitor.execute`."""
        assert self._monitor is not None
        return await self._monitor.execute(command, arguments, timeout=timeout, descriptor=descriptor)

    def describe(self, fault: str) -> str:
        """`fault` with what QEMU and the guest's console said last."""
        parts = [fault]
        if self._process.returncode is not None:
            parts.append(f"QEMU's exit status: {self._process.returncode}")
        if said := self.messages.tail():
            parts.append(f"QEMU said: {said}")
        if said := self.console.tail():
            parts.append(f"the console said: {said}")
        return "; ".join(parts)

    async def _negotiate(self) -> None:
        try:
            await self.execute("qmp_capabilities", timeout=START_LIMIT)
        except MachineError as error:
            self.kill()
            await self._process.wait()
            # The reason is on standard error, which is read by another task up to its end.
            await self.messages.complete.wait()
            raise MachineError(self.describe(f"QEMU did not start: {error}")) from error

    async def _watch(self) -> None:
        await self._process.wait()
        self._port_open.set()
        self._port_closed.set()
        self._migrated.set()

    def _on_event(self, name: str, data: dict[str, Any]) -> None:
        if name == "MIGRATION" and data.get("status") in ("completed", "failed", "cancelled"):
            self._migration = str(data["status"])
            self._migrated.set()
        if name != "VSERPORT_CHANGE" or data.get("id") != PORT_ID:
            return
        if data.get("open") is True:
            self._port_closed.clear()
            self._port_open.set()
        else:
            self._port_open.clear()
            self._port_closed.set()
