"""The other way into a guest: OpenSSH, the host's client and the guest's server, over QEMU's user networking."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from leveret_worker.qemu import Machine

USER = "build"
LIMIT = 120.0


@dataclass(frozen=True)
class Ssh:
    """A connection that lasts: its commands need no new handshake."""

    options: list[str]

    async def run(self, command: str, given: bytes = b"") -> int:
        """Run a command to its end with that standard input; give the number of bytes it wrote."""
        process = await asyncio.create_subprocess_exec(
            *("ssh", *self.options, "guest", command),
            stdin=asyncio.subprocess.PIPE if given else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        written, _ = await asyncio.wait_for(process.communicate(given or None), LIMIT)
        if process.returncode != 0:
            raise RuntimeError(f"ssh {command!r} ended with {process.returncode}")
        return len(written)

    @contextlib.asynccontextmanager
    async def open(self, command: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A command under way: what it writes, and what it reads."""
        process = await asyncio.create_subprocess_exec(
            *("ssh", *self.options, "guest", command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            yield process.stdout, process.stdin
        finally:
            process.stdin.close()
            await asyncio.wait_for(process.wait(), LIMIT)


async def first_command(machine: Machine) -> None:
    """Run `true` in a machine that has just been started, as soon as its sshd lets us in."""
    port = await _forwarded(machine)
    while not await _sshd_speaks(port):
        await asyncio.sleep(0.05)
    await Ssh(_options(port)).run("true")


@contextlib.asynccontextmanager
async def connected(machine: Machine, folder: Path) -> AsyncIterator[Ssh]:
    """Log in as `build`, who needs no key in the bench's image, and keep the connection."""
    options = [*_options(await _forwarded(machine)), "-o", f"ControlPath={folder}/ssh"]
    master = await asyncio.create_subprocess_exec(
        *("ssh", *options, "-o", "ControlMaster=yes", "guest", "echo ready; exec cat"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert master.stdin is not None and master.stdout is not None and master.stderr is not None
    try:
        if await asyncio.wait_for(master.stdout.readline(), LIMIT) != b"ready\n":
            said = (await master.stderr.read()).decode().strip()
            raise RuntimeError(f"the guest's sshd let nobody in: {said}")
        yield Ssh(options)
    finally:
        master.stdin.close()
        await asyncio.wait_for(master.wait(), LIMIT)


def _options(port: int) -> list[str]:
    return [
        *("-F", "none", "-p", str(port), "-l", USER, "-o", "HostName=127.0.0.1", "-o", "BatchMode=yes"),
        *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=60"),
    ]


async def _forwarded(machine: Machine) -> int:
    """The port of the host that leads to the guest's sshd."""
    port = _free_port()
    # The monitor's command for people is the only one that adds a forwarding.
    await machine.execute("human-monitor-command", {"command-line": f"hostfwd_add net tcp:127.0.0.1:{port}-:22"})
    return port


async def _sshd_speaks(port: int) -> bool:
    """Whether sshd says its first line; QEMU takes connections for a guest that does not listen yet, too."""
    try:
        async with asyncio.timeout(0.5):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                return (await reader.readline()).startswith(b"SSH-")
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
