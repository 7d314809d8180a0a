"""What a real guest reaches, by network policy: its worker stands on a host made of network namespaces."""

from pathlib import Path

import pytest

from leveret_worker.qemu import Network
from tests.support.confining import whole
from tests.support.guest_images import stored_image
from tests.support.network_lab import CLIENT, HOST4, HOST6, PRIVATE, PUBLIC, may_make_labs, network_lab

pytestmark = [
    pytest.mark.vm,
    pytest.mark.image("debian/trixie"),
    pytest.mark.timeout(900),
    whole,
    pytest.mark.skipif(not may_make_labs(), reason="needs root, to make network namespaces"),
]

IMAGE = "debian/trixie"
#: What QEMU's user networking gives a guest for the loopback of where it runs.
LOOPBACK = ("10.0.2.2", "fec0::2")
#: Of its own prefix, so that it stays in it.
ON_LINK = "fec0::9"
NAME = "resolved 203.0.114.10"

#: Boots a guest with that network, and says what CLIENT says in it, then how it resolves a name.
BOOTED = '''
import asyncio, pathlib, sys
import structlog
from leveret_guestapi import GuestClient
from leveret_worker.booting import boot_files
from leveret_worker.images import default_store
from leveret_worker.qemu import CageRules, Cages, Machine, MachineSpec, Network

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
# It has an address of IPv6 when it was told its prefix, and found that nobody else has it.
READY = """
import time
until = time.monotonic() + 60
while not any(line.startswith("fec0") and line.split()[4] == "00" for line in open("/proc/net/if_inet6")):
    assert time.monotonic() < until, "no address of IPv6"
    time.sleep(0.1)
"""
RESOLVE = "import socket; print('resolved', socket.gethostbyname('anything.example.org'))"

async def main(name, folder, network, *words):
    network = Network(network)
    image = default_store().find(name, "x86_64")
    about = image.architecture
    spec = MachineSpec("x86_64", about.machine, about.cpu, about.console, memory_mib=512, network_card=True)
    boot = await boot_files(image)
    async with Cages(CageRules(network=network, required=True)) as cages:
        async with cages.cage("test", spec, network) as cage:
            async with Machine.start(spec, boot, pathlib.Path(folder), cage=cage) as machine:
                await machine.wait_port_open(120)
                async with GuestClient.connect(machine.guest_socket, hello_timeout=120) as guest:
                    assert (await guest.run(["python3", "-c", READY], time_limit=90)).status.success
                    done = await guest.run(["python3", "-c", *words], time_limit=120)
                    named = await guest.run(["python3", "-c", RESOLVE], time_limit=60)
    print((done.stdout + named.stdout).decode())

asyncio.run(main(*sys.argv[1:]))
'''


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (Network.EGRESS, {*PUBLIC, NAME}),
        pytest.param(
            Network.FULL,
            {*PUBLIC, *PRIVATE, HOST4, HOST6, *LOOPBACK, NAME} - {ON_LINK},
            marks=pytest.mark.slow,
        ),
    ],
)
async def test_a_guest_reaches_what_its_policy_says(network: Network, expected: set[str], tmp_path: Path) -> None:
    stored_image(IMAGE)
    async with network_lab(tmp_path) as lab:
        folder = str(tmp_path / "m")
        targets = (*PUBLIC, *PRIVATE, HOST4, HOST6, *LOOPBACK)
        said = await lab.run(BOOTED, IMAGE, folder, network, CLIENT, *targets)
    assert {line for line in said if line} == expected
