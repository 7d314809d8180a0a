"""The network namespace that machines with the policy `egress` share, and pasta(1), which connects it to the outside.

A guest's packets end in QEMU's user networking, which opens sockets in this namespace: so 10.0.2.2 leads to a
loopback where nothing listens, and what the filter of `network` denies is unreachable. Pasta, an ordinary process of
the host, sends on what is left. When it ends it is started again; machines meanwhile have no network, and that is all.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import BinaryIO

import structlog

from leveret_worker.qemu import network
from leveret_worker.qemu.confinement import QemuUser, confined, may_open, networked
from leveret_worker.qemu.console import BoundedText
from leveret_worker.qemu.processes import bury, finish, kill_switch

log = structlog.get_logger(__name__)

TUN = Path("/dev/net/tun")
_NFT = "/usr/sbin/nft"  # where an ordinary user's PATH does not lead
_LIMIT = 10.0
"""Seconds for any one step."""
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0


class NoEgressError(Exception):
    """The namespace can't be made; the text says why."""


class Egress:
    """The namespace of one worker. `keep` makes it and keeps it connected."""

    def __init__(self, user: QemuUser | None) -> None:
        """`user`: who owns it and runs pasta; None: who we are."""
        # Where only root may open the device that pasta works with, pasta has to be root in its own user namespace.
        self._user = user if user is not None and may_open(TUN, user) else None
        self._denied: frozenset[IPv4Address | IPv6Address] = frozenset()
        self._namespaces: tuple[str, str] | None = None
        self.fault: str | None = "no way out for guests yet"
        """Why there is no way out at the moment; None where there is."""
        self.was_connected = False
        self.told = asyncio.Event()
        """Set when the first attempt to connect it has succeeded or failed."""

    def inside(self, words: Sequence[str]) -> list[str]:
        """The command line that runs `words` in the namespace. Raises NoEgressError while there is none."""
        if self._namespaces is None:
            raise NoEgressError(self.fault)
        user, net = self._namespaces
        return networked(words, None if os.geteuid() == 0 else user, net)

    async def refresh(self) -> None:
        """Deny what addresses the host has got since. Raises NoEgressError."""
        new = _own_addresses() - self._denied
        if new and self._namespaces is not None:
            await self._filter(network.deny(new))
            self._denied |= new

    async def keep(self) -> None:
        """Make the namespace, and connect it again whenever it is cut off. Until cancelled."""
        while True:
            try:
                async with self._namespace() as holder:
                    await self._keep_connected(holder)
            except (NoEgressError, OSError, TimeoutError) as error:
                self._failed(str(error) or "it took too long")
            await asyncio.sleep(_LONGEST_PAUSE)

    @contextlib.asynccontextmanager
    async def _namespace(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """Make it, with a process in it by which pasta finds it; it is held by descriptors of ours."""
        command = confined(["unshare", "--user", "--map-root-user", "--net", "--", "cat"], self._user)
        async with _running(command) as holder, contextlib.AsyncExitStack() as held:
            assert holder.stdin is not None and holder.stdout is not None
            holder.stdin.write(b"there\n")
            async with asyncio.timeout(_LIMIT):
                if not await holder.stdout.readline():
                    raise NoEgressError(f"no network namespace of its own: {await _said(holder)}")
            paths = []
            for kind in ("user", "net"):
                number = os.open(f"/proc/{holder.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
                held.callback(os.close, number)
                paths.append(f"/proc/{os.getpid()}/fd/{number}")
            self._namespaces = (paths[0], paths[1])
            try:
                own = _own_addresses()
                await self._filter(network.ruleset(own))
                self._denied = own
                yield holder
            finally:
                self._namespaces = None

    async def _filter(self, commands: str) -> None:
        finished = await finish(self.inside([_NFT, "--file", "-"]), limit=_LIMIT, requests=commands.encode())
        if finished.status != 0:
            raise NoEgressError(f"nft (package nftables): {finished.errors}")

    async def _keep_connected(self, holder: asyncio.subprocess.Process) -> None:
        """Run pasta for as long as `holder` lives, again and again with longer pauses while it does not last."""
        pause = _SHORTEST_PAUSE
        clock = asyncio.get_running_loop().time
        while holder.returncode is None:
            began = clock()
            try:
                await self._connected(holder)
            except (NoEgressError, OSError, TimeoutError) as error:
                self._failed(str(error) or "it took too long")
            pause = _SHORTEST_PAUSE if clock() - began > _LONGEST_PAUSE else min(2 * pause, _LONGEST_PAUSE)
            await asyncio.sleep(pause)

    async def _connected(self, holder: asyncio.subprocess.Process) -> None:
        """One run of pasta. Raises NoEgressError at its end."""
        command = confined(self._pasta(holder.pid), self._user)
        async with self._pipe() as (told, output), _running(command, output) as pasta:
            output.close()
            async with asyncio.timeout(_LIMIT):
                ready = await told.readline()
            if ready:
                log.info("guests have a way out", pasta=pasta.pid)
                self.fault, self.was_connected = None, True
                self.told.set()
            raise NoEgressError(f"pasta (package passt) ended: {await _said(pasta)}")

    @contextlib.asynccontextmanager
    async def _pipe(self) -> AsyncIterator[tuple[asyncio.StreamReader, BinaryIO]]:
        """A pipe of which pasta may open the end that it writes to; a loop's own need be no pipes."""
        loop = asyncio.get_running_loop()
        ours, theirs = os.pipe()
        with os.fdopen(theirs, "wb") as output:
            if self._user is not None:
                os.fchown(theirs, self._user.uid, self._user.gid)
            reader = asyncio.StreamReader()
            transport, _ = await loop.connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb")
            )
            try:
                yield reader, output
            finally:
                transport.close()

    def _pasta(self, holder: int) -> list[str]:
        """It tells by its process id on standard output that it is ready, and forwards nothing inwards."""
        stays_root = os.geteuid() == 0 and self._user is None
        return [
            *("pasta", "--foreground", "--quiet", "--pid", "/dev/stdout"),
            *(("--runas", "0") if stays_root else ()),
            *("--config-net", "--no-map-gw", "--ns-ifname", "out", "--dns-forward", str(network.RESOLVER4)),
            *("--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none"),
            *("--address", str(network.ADDRESS4), "--netmask", str(network.LINK4.prefixlen)),
            *("--gateway", str(network.GATEWAY4)),
            *(("--address", str(network.ADDRESS6), "--gateway", str(network.GATEWAY6)) if _has_ipv6() else ("-4",)),
            *("--userns", f"/proc/{holder}/ns/user", "--netns", f"/proc/{holder}/ns/net"),
        ]

    def _failed(self, reason: str) -> None:
        self.fault = f"no way out for guests: {reason}"
        log.warning("guests have no way out", reason=reason)
        self.told.set()


@contextlib.asynccontextmanager
async def _running(command: list[str], output: BinaryIO | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process for as long as the context. Raises NoEgressError where it is not installed."""
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=output or pipe, stderr=pipe)
    except FileNotFoundError as error:
        raise NoEgressError(f"{error.filename} is not installed: it is in the package util-linux") from error
    try:
        with kill_switch(process):
            yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await bury(process)


async def _said(process: asyncio.subprocess.Process) -> str:
    """What `process` says on standard error until it ends."""
    assert process.stderr is not None
    text = BoundedText()
    await text.fill_from(process.stderr)
    return text.tail()


def _own_addresses() -> frozenset[IPv4Address | IPv6Address]:
    table = Path("/proc/net/if_inet6")
    return network.own_addresses(Path("/proc/net/fib_trie").read_text(), table.read_text() if _has_ipv6() else "")


def _has_ipv6() -> bool:
    return Path("/proc/net/if_inet6").exists()
