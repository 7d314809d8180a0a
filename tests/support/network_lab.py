"""Two network namespaces for tests of what guests reach: "the host", where the worker runs, and what lies outside it.

Nothing leads out of them. Addresses that belong to somebody else in the world stand for themselves here.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

PORT = 8080
LIMIT = 60.0
#: The host's address, by which it also goes out.
HOST4, HOST6 = "10.9.0.2", "2600:9::2"
#: Where names are asked for.
RESOLVER = "10.9.0.1"
#: Reachable from anywhere.
PUBLIC = ("203.0.114.10", "2600:1::10")
#: Reachable from the host alone.
PRIVATE = (
    "10.77.0.1", "172.20.1.1", "192.168.5.5", "100.64.1.1", "198.18.0.1", "192.0.2.7", "203.0.113.9",
    "169.254.169.254", "fd00:ec2::254", "fd12::1", "64:ff9b::a4d:1", "2002:a4d:1::1", "fec0::9",
)  # fmt: skip

_SERVER = f"""
import select, socket
serving = []
for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
    tcp = socket.socket(family)
    if family == socket.AF_INET6:
        tcp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    tcp.bind((address, {PORT}))
    tcp.listen(50)
    serving.append(tcp)
names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind(("0.0.0.0", 53))
print("ready", flush=True)
while True:
    for one in select.select([*serving, names], [], [])[0]:
        if one is names:
            question, asker = names.recvfrom(512)
            # header: answered, one question, one answer; a pointer to the question's name, A, IN, 60 s, the address
            answer = question[:2] + bytes.fromhex("81800001000100000000") + question[12:]
            names.sendto(answer + bytes.fromhex("c00c000100010000003c0004cb00720a"), asker)
        else:
            one.accept()[0].close()
"""

CLIENT = f"""
import socket, sys
for target in sys.argv[1:]:
    try:
        socket.create_connection((target, {PORT}), 5).close()
        print(target)
    except OSError:
        pass
"""
"""Prints those of its arguments that can be connected to."""


@dataclass(frozen=True)
class Lab:
    """A host and what lies outside."""

    host: int
    """Process id of one that lives in the host's namespace."""
    resolv_conf: Path
    #: Mode of /dev/net/tun, in octal: 666 where udev made it, 600 where the kernel alone did.
    tun: str

    def on_host(self, words: Sequence[str]) -> list[str]:
        """The command line that runs `words` on the host, as root, with its resolver."""
        furnished = f"""
mount --bind "$0" "$(realpath /etc/resolv.conf)"
mount -t tmpfs none /dev/net
mknod -m {self.tun} /dev/net/tun c 10 200
exec "$@"
"""
        inside = ["unshare", "--mount", "--", "sh", "-ec", furnished, str(self.resolv_conf), *words]
        return ["nsenter", f"--net=/proc/{self.host}/ns/net", "--", *inside]

    async def run(self, script: str, *arguments: str, root: bool = True, status: int = 0) -> list[str]:
        """The lines that a Python script of ours prints on the host, as root or as one who seems an ordinary user."""
        someone = [] if root else ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--"]
        command = self.on_host([*someone, sys.executable, "-c", script, *arguments])
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=Path.cwd()
        )
        try:
            async with asyncio.timeout(LIMIT * 4):
                output, errors = await process.communicate()
        except BaseException:
            process.kill()
            await process.communicate()
            raise
        assert process.returncode == status, errors.decode()[-4000:]
        return output.decode().splitlines()


def may_make_labs() -> bool:
    """Only root may, without further ado."""
    return os.geteuid() == 0


@asynccontextmanager
async def network_lab(folder: Path, *, tun: str = "666") -> AsyncIterator[Lab]:
    """A lab. PUBLIC and PRIVATE answer on PORT outside, the host on every address of its own."""
    resolv_conf = folder / "resolv.conf"
    resolv_conf.write_text(f"nameserver {RESOLVER}\n")
    async with AsyncExitStack() as running:
        host = await running.enter_async_context(_namespace())
        beyond = await running.enter_async_context(_namespace())
        await _ip(
            host, f"link add inner type veth peer name outer netns {beyond}", "link set lo up", "link set inner up"
        )
        await _ip(beyond, "link set lo up", "link set outer up", "addr add 10.9.0.1/24 dev outer")
        await _ip(beyond, "addr add 2600:9::1/64 dev outer nodad")
        await _ip(beyond, *(f"addr add {address} dev outer{_plain(address)}" for address in (*PUBLIC, *PRIVATE)))
        await _ip(host, f"addr add {HOST4}/24 dev inner", f"addr add {HOST6}/64 dev inner nodad")
        await _ip(host, "route add default via 10.9.0.1", "route add default via 2600:9::1")
        for namespace in (host, beyond):
            await running.enter_async_context(_server(namespace))
        yield Lab(host, resolv_conf, tun)


def _plain(address: str) -> str:
    return " nodad" if ":" in address else ""


@asynccontextmanager
async def _namespace() -> AsyncIterator[int]:
    async with _talking(["unshare", "--net", "--", "sh", "-c", "echo there; exec sleep infinity"]) as process:
        yield process.pid


def _server(namespace: int) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
    return _talking(["nsenter", f"--net=/proc/{namespace}/ns/net", "--", sys.executable, "-c", _SERVER])


@asynccontextmanager
async def _talking(command: list[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that has said its first line, for as long as the context."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(LIMIT):
            assert await process.stdout.readline(), f"{command} ended"
        yield process
    finally:
        process.kill()
        await process.communicate()


async def _ip(namespace: int, *commands: str) -> None:
    process = await asyncio.create_subprocess_exec(
        "nsenter", f"--net=/proc/{namespace}/ns/net", "--", "ip", "-batch", "-", stdin=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(LIMIT):
        await process.communicate("".join(f"{command}\n" for command in commands).encode())
    assert process.returncode == 0, commands
