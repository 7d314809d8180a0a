"""What a process in a cage reaches, by network policy: between namespaces that stand for a host and the world."""

import signal
from pathlib import Path

import pytest

from leveret_worker.qemu import CageRules, Cages, MachineError, MachineSpec, Network
from leveret_worker.qemu.egress import Egress
from tests.support.confining import whole
from tests.support.network_lab import CLIENT, HOST4, HOST6, PRIVATE, PUBLIC, may_make_labs, network_lab
from tests.support.processes import until_gone

SPEC = MachineSpec("x86_64", "q35", "max", "ttyS0", network_card=True)

pytestmark = [whole, pytest.mark.skipif(not may_make_labs(), reason="needs root, to make network namespaces")]

_BEGINNING = """
import asyncio, os, subprocess, sys
from pathlib import Path
import structlog
from leveret_worker.qemu import CageRules, Cages, MachineSpec, Network

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

async def in_a_cage(cages, network, words):
    spec = MachineSpec("x86_64", "q35", "max", "ttyS0", network_card=True)
    async with cages.cage("test", spec, network) as cage:
        command = cage.command(["/usr/bin/python3", "-c", *words])
        process = await asyncio.create_subprocess_exec(*command, pass_fds=cage.descriptors)
        assert await process.wait() == 0
"""
#: Runs CLIENT in a cage, and says what it says.
CAGED = (
    _BEGINNING
    + """
async def main(network, *words):
    network = Network(network)
    # An ordinary user has control groups only where they were delegated to him.
    async with Cages(CageRules(network=network, required=os.geteuid() == 0)) as cages:
        assert cages.refusal is None and cages.network is network, cages.notes
        await in_a_cage(cages, network, words)

asyncio.run(main(*sys.argv[1:]))
"""
)

#: By which a socket may try to get past rules and routes.
DETOURS = ("::ffff:10.77.0.1", "::ffff:169.254.169.254", "0.0.0.0", "::")
HOST = (HOST4, HOST6, "127.0.0.1", "127.8.9.1", "::1", *DETOURS[2:])


@pytest.mark.parametrize("root", [True, False])
@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (Network.NONE, set()),
        (Network.EGRESS, {*PUBLIC}),
        (Network.FULL, {*PUBLIC, *PRIVATE, *HOST, *DETOURS}),
    ],
)
async def test_what_is_reached_is_what_the_policy_says(
    network: Network, expected: set[str], root: bool, tmp_path: Path
) -> None:
    async with network_lab(tmp_path) as lab:
        said = await lab.run(CAGED, network, CLIENT, *PUBLIC, *PRIVATE, *HOST, *DETOURS, root=root)
    assert set(said) == expected


BOUND = """
import socket, sys
for target in sys.argv[1:]:
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    for kind, port in ((socket.SOCK_STREAM, 8080), (socket.SOCK_DGRAM, 53)):
        with socket.socket(family, kind) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"out")
            one.settimeout(1)
            try:
                if kind == socket.SOCK_STREAM:
                    one.connect((target, port))
                else:
                    one.sendto(bytes(30), (target, port))
                    one.recvfrom(512)
                print(target)
            except OSError:
                pass
"""


async def test_a_socket_bound_to_the_interface_gets_no_further(tmp_path: Path) -> None:
    """What a QEMU could do that a guest has taken over. Linux itself would let it past all routes and rules."""
    async with network_lab(tmp_path) as lab:
        reached = await lab.run(CAGED, Network.EGRESS, BOUND, *PUBLIC, *PRIVATE, HOST4, HOST6)
        assert set(reached) == {*PUBLIC}


RESOLVE = """
import socket
print(socket.gethostbyname("anything.example.org"))
"""


@pytest.mark.parametrize("tun", ["666", "600"])
async def test_names_are_resolved_by_the_hosts_resolver_though_that_is_not_reached(tun: str, tmp_path: Path) -> None:
    async with network_lab(tmp_path, tun=tun) as lab:
        assert await lab.run(CAGED, Network.EGRESS, RESOLVE) == ["203.0.114.10"]


#: Kills pasta, and runs CLIENT in a cage when there is another one.
RECONNECTED = (
    _BEGINNING
    + """
def pastas():
    children = [int(one) for one in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    return {one for one in children if Path(f"/proc/{one}/comm").read_text()[:5] in ("pasta", "passt")}

async def main(*words):
    async with Cages(CageRules(network=Network.EGRESS, required=True)) as cages:
        (first,) = pastas()
        os.kill(first, 9)
        async with asyncio.timeout(30):
            while not cages.notes:
                await asyncio.sleep(0.01)
            print("told", cages.refusal is None)
            while cages.notes:
                await asyncio.sleep(0.01)
        assert first not in pastas()
        await in_a_cage(cages, Network.EGRESS, words)

asyncio.run(main(*sys.argv[1:]))
"""
)


async def test_a_pasta_that_dies_is_started_again_and_the_filter_still_holds(tmp_path: Path) -> None:
    async with network_lab(tmp_path) as lab:
        said = await lab.run(RECONNECTED, CLIENT, *PUBLIC, *PRIVATE[:4])
    assert said == ["told True", *PUBLIC]


#: Gives the host addresses when the worker is there already, then runs CLIENT in a cage.
RENUMBERED = (
    _BEGINNING
    + """
async def main(*words):
    async with Cages(CageRules(network=Network.EGRESS, required=True)) as cages:
        for address in ("93.184.216.34/32", "2606:2800::1/128"):
            subprocess.run(["ip", "address", "add", address, "dev", "inner"], check=True)
        await in_a_cage(cages, Network.EGRESS, words)

asyncio.run(main(*sys.argv[1:]))
"""
)


async def test_an_address_that_the_host_gets_later_is_denied_too(tmp_path: Path) -> None:
    async with network_lab(tmp_path) as lab:
        assert await lab.run(RENUMBERED, CLIENT, *PUBLIC, "93.184.216.34", "2606:2800::1") == [*PUBLIC]


#: Opens cages, names what was started for them, and is killed.
KILLED = (
    _BEGINNING
    + """
async def main():
    async with Cages(CageRules(network=Network.EGRESS)) as cages:
        assert cages.network is Network.EGRESS, cages.notes
        print(Path(f"/proc/self/task/{os.getpid()}/children").read_text(), flush=True)
        os.kill(os.getpid(), 9)

asyncio.run(main())
"""
)


@pytest.mark.parametrize("tun", ["666", "600"])
async def test_what_keeps_the_way_out_dies_with_the_worker(tun: str, tmp_path: Path) -> None:
    async with network_lab(tmp_path, tun=tun) as lab:
        (line,) = await lab.run(KILLED, status=-signal.SIGKILL)
        started = [int(word) for word in line.split()]
        assert len(started) == 2
        await until_gone(started)


async def test_without_pasta_there_is_no_way_out_and_never_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Egress, "_pasta", lambda *_: ["pasta-that-is-not-installed"])
    async with Cages(CageRules(network=Network.EGRESS, required=True)) as cages:
        assert "passt" in (cages.refusal or "")
        with pytest.raises(MachineError, match="passt"):
            async with cages.cage("test", SPEC, Network.EGRESS):
                pass
    async with Cages(CageRules(network=Network.EGRESS)) as cages:
        assert cages.refusal is None
        assert cages.network is Network.NONE
        assert any("passt" in note for note in cages.notes)
        with pytest.raises(MachineError, match="no egress"):
            async with cages.cage("test", SPEC, Network.EGRESS):
                pass
