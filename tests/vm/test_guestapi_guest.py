"""The guest API in real guests: over QEMU's port, as process 1 and as a service of systemd's."""

import asyncio
import hashlib
import random
import time
from pathlib import Path

import pytest

from leveret_guestapi import AgentGone, GuestClient
from tests.support.guest_images import booted, stored_image

pytestmark = [pytest.mark.vm, pytest.mark.image("test/minimal"), pytest.mark.timeout(900)]

MACHINE_ID = "0123456789abcdef" * 2
NAMES = "cat /proc/sys/kernel/hostname /etc/hostname /etc/machine-id; grep -c job-17 /etc/hosts"


async def test_a_guest_takes_its_clock_its_randomness_and_its_names_from_the_host(tmp_path: Path) -> None:
    async with booted(stored_image("test/minimal"), tmp_path) as (_, guest):
        assert guest.hello.pid == 1
        await guest.run(["date", "-s", "2001-02-03 04:05:06"])
        assert await guest.sync_clock()
        asked = time.time()
        now = float((await guest.run(["date", "+%s"])).stdout)
        assert asked - 2 < now < time.time() + 2
        assert await guest.set_identity(host_name="job-17", machine_id=MACHINE_ID)
        assert (await guest.run(NAMES)).stdout.decode().split() == ["job-17", "job-17", MACHINE_ID, "1"]
        # as process 1 it collects what commands leave behind
        orphans = "for i in 1 2 3; do (sleep 0 &); done; sleep 1; grep -l 'State:.Z' /proc/[0-9]*/status"
        assert (await guest.run(orphans)).stdout == b""


async def test_a_channel_cut_at_random_moments_loses_nothing(tmp_path: Path) -> None:
    """QEMU drops what is under way when the host's end closes, and does not tell the guest."""
    data = random.Random(5).randbytes(3_000_000)
    chance = random.Random(5)
    async with booted(stored_image("test/minimal"), tmp_path) as (machine, first):
        await first.stat("/")
        client = GuestClient.connect(machine.guest_socket, hello_timeout=120, reconnect_limit=60)
        first.lose(AgentGone("another session begins"))
        async with client as guest:
            cuts = 0

            async def cut() -> None:
                nonlocal cuts
                while True:
                    await asyncio.sleep(chance.expovariate(10))
                    transport = guest._conversation._transport
                    if transport is not None and guest._conversation._link.is_open:
                        transport.abort()
                        cuts += 1

            async with asyncio.TaskGroup() as tasks:
                cutting = tasks.create_task(cut())
                async with asyncio.timeout(300):
                    while cuts < 5:
                        await guest.write_file("/tmp/there", data)
                        received = b"".join([piece async for piece in guest.read_file("/tmp/there", len(data))])
                        done = await guest.run(["sha256sum", "/tmp/there"])
                        assert received == data
                        assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()
                cutting.cancel()


@pytest.mark.slow  # its image takes a minute to make, and systemd half a minute to start
async def test_an_agent_that_is_a_service_owns_the_machine_and_is_missed_when_it_is_killed(tmp_path: Path) -> None:
    async with booted(stored_image("bench/systemd"), tmp_path) as (machine, guest):
        assert guest.hello.pid != 1
        assert await guest.sync_clock()
        assert await guest.set_identity(host_name="job-17", machine_id=MACHINE_ID)
        assert (await guest.run("hostname; cat /etc/machine-id")).stdout.decode().split() == ["job-17", MACHINE_ID]
        with pytest.raises(AgentGone, match="no preamble"):
            await guest.run(f"kill -KILL {guest.hello.pid}; sleep 60")  # systemd starts it again, on the same port
        async with GuestClient.connect(machine.guest_socket, hello_timeout=60) as again:
            assert again.hello.pid != guest.hello.pid
            assert again.hello.boot_id == guest.hello.boot_id
            await again.shut_down()
        async with asyncio.timeout(60):
            assert await machine.wait() == 0
