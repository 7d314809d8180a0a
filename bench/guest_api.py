"""The guest API in a real guest without KVM, and beside it OpenSSH to the same guest, in turns."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from bench.agent_start import STARTS, agent_starts
from bench.result import MB, Result, median, percentile, skipped
from bench.setting import Bench
from bench.ssh_peer import Ssh, connected
from leveret_guestapi import GuestClient
from leveret_worker.booting import boot_files
from leveret_worker.images import ImageError, StoredImage, default_store
from leveret_worker.qemu import Cages, Machine, MachineSpec, Network

#: systemd, sshd, and the agent as a service: see deploy/images/bench.
IMAGE = "bench/systemd"
ROUNDS = 5
TRIPS = 200
SIZE = 30 * MB
LIMIT = 180.0
FILE = "/home/build/bench"
OUTPUT = f"head -c {SIZE} /dev/zero"
NAME = "guest API in a guest without KVM"


@dataclass
class Figures:
    """What the rounds gave for one of the two ways."""

    echoes: list[float] = field(default_factory=list)
    """Milliseconds from a line for `cat` to its return, the median of each round."""
    commands: list[float] = field(default_factory=list)
    """Milliseconds of a command that does nothing, the median of each round."""
    output: list[float] = field(default_factory=list)
    """Megabytes a second, as all below."""
    write: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)


async def measure(bench: Bench) -> list[Result]:
    """Boot the image, then go by the guest API and by SSH, round by round."""
    if not shutil.which("ssh"):
        return [skipped(NAME, "", "no ssh on this host")]
    try:
        image = default_store().find(IMAGE, "x86_64")
    except ImageError:
        return [skipped(NAME, "", f"no image {IMAGE}: `leveret-image build {IMAGE}` makes it")]
    ours, theirs = Figures(), Figures()
    async with _booted(image, bench) as (machine, guest), _reached_by_ssh(machine, guest, bench) as ssh:
        starts = await agent_starts(guest, "/usr/bin/python3")
        trips = [1000 * await _seconds(lambda: guest.stat("/")) for _ in range(ROUNDS * TRIPS)]
        for _ in range(ROUNDS):
            await _by_guest_api(guest, ours)
            await _by_ssh(ssh, theirs)
    return _results(starts, trips, ours, theirs)


@contextlib.asynccontextmanager
async def _booted(image: StoredImage, bench: Bench) -> AsyncIterator[tuple[Machine, GuestClient]]:
    about = image.architecture
    spec = MachineSpec("x86_64", about.machine, about.cpu, about.console, memory_mib=1024, network_card=True)
    files = await boot_files(image)
    async with Cages() as cages, cages.cage("guest-api", spec, Network.FULL) as cage:
        async with Machine.start(spec, files, bench.folder / "guest-api", cage=cage) as machine:
            await machine.wait_port_open(LIMIT)
            async with GuestClient.connect(machine.guest_socket, hello_timeout=LIMIT) as guest:
                yield machine, guest


@contextlib.asynccontextmanager
async def _reached_by_ssh(machine: Machine, guest: GuestClient, bench: Bench) -> AsyncIterator[Ssh]:
    listening = "until (: </dev/tcp/127.0.0.1/22) 2>/dev/null; do sleep 0.2; done"
    await guest.run(["bash", "-c", listening], time_limit=LIMIT)
    async with connected(machine, bench.folder) as ssh:
        yield ssh


async def _by_guest_api(guest: GuestClient, figures: Figures) -> None:
    async with guest.exec(["cat"], stdin=True) as process:
        echo = process.output()

        async def there_and_back() -> None:
            await process.write(b"there and back\n")
            await anext(echo)

        figures.echoes.append(await _milliseconds(there_and_back, TRIPS))
        process.close_input()
        async for _ in echo:
            pass

    async def command() -> None:
        await guest.run("true", user="build")

    async def output() -> None:
        async with guest.exec(OUTPUT, user="build") as process:
            _check(sum([len(data) async for _, data in process.output()]))

    async def read() -> None:
        _check(sum([len(data) async for data in guest.read_file(FILE, SIZE)]))

    figures.commands.append(await _milliseconds(command))
    figures.output.append(await _rate(output))
    figures.write.append(await _rate(lambda: guest.write_file(FILE, bytes(SIZE), user="build")))
    figures.read.append(await _rate(read))


async def _by_ssh(ssh: Ssh, figures: Figures) -> None:
    async with ssh.open("exec cat") as (reader, writer):

        async def there_and_back() -> None:
            writer.write(b"there and back\n")
            await reader.readline()

        await there_and_back()
        figures.echoes.append(await _milliseconds(there_and_back, TRIPS))

    async def command() -> None:
        await ssh.run("true")

    async def output() -> None:
        _check(await ssh.run(OUTPUT))

    async def write() -> None:
        await ssh.run(f"cat >{FILE}", bytes(SIZE))

    async def read() -> None:
        _check(await ssh.run(f"cat {FILE}"))

    figures.commands.append(await _milliseconds(command))
    figures.output.append(await _rate(output))
    figures.write.append(await _rate(write))
    figures.read.append(await _rate(read))


async def _milliseconds(action: Callable[[], Awaitable[object]], times: int = 5) -> float:
    return 1000 * median([await _seconds(action) for _ in range(times)])


async def _rate(action: Callable[[], Awaitable[None]]) -> float:
    return SIZE / MB / await _seconds(action)


async def _seconds(action: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    async with asyncio.timeout(LIMIT):
        await action()
    return time.perf_counter() - began


def _check(received: int) -> None:
    if received != SIZE:
        raise RuntimeError(f"{received} of {SIZE} bytes came")


def _results(starts: list[float], trips: list[float], ours: Figures, theirs: Figures) -> list[Result]:
    over = f"TCG, virtio-serial, median of {ROUNDS} rounds"
    peer = f"OpenSSH to the same guest, its connection kept; median of {ROUNDS} rounds' ratios"

    def times(one: list[float], other: list[float]) -> float:
        return median([a / b for a, b in zip(one, other, strict=True)])

    return [
        Result("agent: start → answer to hello", median(starts), "s", 0.3, compared_with=f"TCG, median of {STARTS}"),
        Result("guest API: round trip, p50", median(trips), "ms", 1.5, compared_with="TCG, virtio-serial"),
        Result("guest API: round trip, p99", percentile(trips, 0.99), "ms", compared_with="TCG, virtio-serial"),
        Result("guest API: a command's output", median(ours.output), "MB/s", 20, "higher", over),
        Result("guest API: writing a file", median(ours.write), "MB/s", 40, "higher", over),
        Result("guest API: reading a file", median(ours.read), "MB/s", compared_with=over),
        Result("guest API: a command that does nothing", median(ours.commands), "ms", compared_with=over),
        Result("a command's output ÷ by SSH", times(ours.output, theirs.output), "×", 4, "higher", peer),
        Result("writing a file ÷ by SSH", times(ours.write, theirs.write), "×", 4, "higher", peer),
        Result("reading a file ÷ by SSH", times(ours.read, theirs.read), "×", 4, "higher", peer),
        Result("commands a second ÷ by SSH", times(theirs.commands, ours.commands), "×", compared_with=peer),
        Result("lines through cat a second ÷ by SSH", times(theirs.echoes, ours.echoes), "×", compared_with=peer),
    ]
