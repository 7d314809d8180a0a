"""Templates: a machine is recorded once, when its agent has answered, and many others go on from there.

What is kept is its memory, the state of its devices and what it wrote to its disk. A recorded machine has no session
with a host; those restored from it are told the time, fresh randomness and a name of their own by who talks to the
agent.
"""

import asyncio
import contextlib
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from leveret_worker.qemu.arguments import MachineSpec, MemoryFile
from leveret_worker.qemu.cage import Cage
from leveret_worker.qemu.errors import MachineError
from leveret_worker.qemu.launch import BootFiles
from leveret_worker.qemu.machine import Machine
from leveret_worker.qemu.memory import Extent, extents, new_memory, pack, unpack

STATE_LIMIT = 10.0
"""Seconds for the device state to leave a machine or to arrive."""
MAX_STATE = 64 * 1024 * 1024
"""Bytes of it; there are some 400,000."""
_DISK, _MEMORY, _STATE = "disk.qcow2", "memory", "state"


class RecordedFiles(BaseModel):
    """What a template's files hold. Digests are SHA-256 in hex."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    disk: str
    state: str
    memory: str
    memory_size: int
    memory_extents: list[Extent]
    """Where in the guest's memory the packed pieces of the file go."""


@dataclass(frozen=True)
class Template:
    """A recorded machine, verified and ready to go on from."""

    disk: Path
    """qcow2 over the image's disk."""
    memory: int
    """Descriptor of a sealed memory, see memory.py."""
    state: bytes
    """Of the devices, as QEMU migrates it."""

    def close(self) -> None:
        """Let go of the memory; machines that go on from it keep it."""
        os.close(self.memory)


@contextlib.asynccontextmanager
async def restored(
    spec: MachineSpec, boot: BootFiles, template: Template, directory: Path, *, cage: Cage
) -> AsyncIterator[Machine]:
    """A machine that goes on where that of `template` was recorded; `spec` and `boot` must be those of that one.

    Arguments and errors are those of `Machine.start`.
    """
    memory = MemoryFile(template.memory, recorded=True)
    async with Machine.start(spec, boot, directory, cage=cage, layer=template.disk, memory=memory) as machine:
        await _load_state(machine, template.state)
        yield machine


async def record(
    spec: MachineSpec,
    boot: BootFiles,
    directory: Path,
    settle: Callable[[Path], Awaitable[object]],
    *,
    cage: Cage,
    limit: float,
    background: bool = False,
) -> RecordedFiles:
    """Boot a machine and record it in files of `directory`, which exists.

    `settle` talks to the agent through the socket at the given path and returns when the guest is as it should be
    recorded, its session over. `limit`: seconds until the agent is there. `background`: see `Machine.start`.

    Raises:
        MachineError: the machine or its recording failed. What `settle` raises comes out as it is.
    """
    size = spec.memory_mib * 1024 * 1024
    memory = new_memory(size)
    try:
        to_memory = MemoryFile(memory, recorded=False)
        machine_directory = directory / "machine"
        async with Machine.start(
            spec, boot, machine_directory, cage=cage, memory=to_memory, background=background
        ) as machine:
            await machine.wait_port_open(limit)
            await settle(machine.guest_socket)
            state = await _save_state(machine)
            os.link(machine.disk, directory / _DISK)  # what QEMU had still to write to it went before the state
        # a copy of the descriptor: the thread goes on where we are cancelled
        return await asyncio.to_thread(write, directory, os.dup(memory), state, size)
    finally:
        os.close(memory)


def write(directory: Path, memory: int, state: bytes, size: int) -> RecordedFiles:
    """Write a recorded machine's memory, whose descriptor is closed, and device state beside its disk."""
    try:
        parts = extents(memory)
        with (directory / _MEMORY).open("xb") as stream:
            packed = pack(memory, parts, stream)
    finally:
        os.close(memory)
    (directory / _STATE).write_bytes(state)
    with (directory / _DISK).open("rb") as stream:
        disk = hashlib.file_digest(stream, "sha256").hexdigest()
    return RecordedFiles(
        disk=disk,
        state=hashlib.sha256(state).hexdigest(),
        memory=packed,
        memory_size=size,
        memory_extents=parts,
    )


def load(directory: Path, files: RecordedFiles) -> Template:
    """Read a recorded machine and verify all of it.

    Raises:
        MachineError: a file is missing, or is not what was recorded.
    """
    try:
        with (directory / _DISK).open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != files.disk:
                raise MachineError("the recorded disk was changed")
        state = (directory / _STATE).read_bytes()
        if hashlib.sha256(state).hexdigest() != files.state:
            raise MachineError("the recorded device state was changed")
        with (directory / _MEMORY).open("rb") as stream:
            memory = unpack(stream, files.memory_extents, files.memory_size, files.memory)
    except OSError as error:
        raise MachineError(f"{error.strerror}: {error.filename}") from error
    return Template(directory / _DISK, memory, state)


async def _save_state(machine: Machine) -> bytes:
    """Stop the machine and take the state of its devices: QEMU's migration without the memory, which is shared."""
    await machine.execute("stop")
    with await _state_channel(machine) as ours:
        await machine.execute("migrate", {"uri": "fd:state"})
        try:
            async with asyncio.timeout(STATE_LIMIT):
                state = await _read_all(ours)
        except TimeoutError as error:
            raise MachineError(machine.describe(f"no device state came within {STATE_LIMIT:g} s")) from error
        await machine.wait_migrated(STATE_LIMIT)
    return state


async def _load_state(machine: Machine, state: bytes) -> None:
    """Give a machine that waits for it the state of its devices, and let it run."""
    with await _state_channel(machine) as ours:
        await machine.execute("migrate-incoming", {"uri": "fd:state"})
        # where QEMU does not take it all, `wait_migrated` knows why
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(STATE_LIMIT):
                await asyncio.get_running_loop().sock_sendall(ours, state)
                ours.shutdown(socket.SHUT_WR)  # or QEMU would wait for what is missing
        await machine.wait_migrated(STATE_LIMIT)
    await machine.execute("cont")  # it was recorded stopped


async def _state_channel(machine: Machine) -> socket.socket:
    """A socket whose other end QEMU knows as `state`, and QEMU set up to leave out the memory."""
    wanted = [{"capability": name, "state": True} for name in ("x-ignore-shared", "events")]
    await machine.execute("migrate-set-capabilities", {"capabilities": wanted})
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            await machine.execute("getfd", {"fdname": "state"}, descriptor=theirs.fileno())
        except BaseException:
            ours.close()
            raise
    ours.setblocking(False)
    return ours


async def _read_all(channel: socket.socket) -> bytes:
    """What comes until the end, at most MAX_STATE bytes."""
    loop = asyncio.get_running_loop()
    state = bytearray()
    while block := await loop.sock_recv(channel, 1024 * 1024):
        state += block
        if len(state) > MAX_STATE:
            raise MachineError(f"QEMU has more than {MAX_STATE} bytes of device state")
    return bytes(state)
