"""Logs of a real guest without KVM: how fast beside the bare channel, and how soon a line is on a terminal."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench.follower import Follower
from bench.log_sender import LIMIT, bulk_outlet, seconds_until_sealed, sent
from bench.played_worker import MANIFEST, PlayedWorker
from bench.result import MB, Result, median, percentile, skipped
from bench.setting import Bench
from bench.submitting import Submitter
from leveret_embedded.stack import Stack
from leveret_guestapi import GuestClient
from leveret_proto.messages import AttemptState, Grant
from leveret_worker.booting import boot_files
from leveret_worker.images import ImageError, StoredImage, default_store
from leveret_worker.masked_output import MaskedOutput
from leveret_worker.qemu import Cages, Machine, MachineSpec, Network

IMAGE = "test/minimal"
ROUNDS = 3
SIZE = 10 * MB
OUTPUT = f"exec head -c {SIZE} /dev/zero"
#: Lines, and seconds between them.
LINES = 100
GAP = (0.1, 0.4)
NAME = "log, guest → sealed, as a share of the channel"


async def measure(bench: Bench) -> list[Result]:
    """In one guest: a command's output to nowhere and to a sealed log, in turns; then lines, one at a time."""
    host = os.uname().machine
    try:
        image = default_store().find(IMAGE, host)
    except ImageError:
        return [skipped(NAME, "ratio", f"no image {IMAGE}: `leveret-image build {IMAGE}` makes it")]
    stack = await bench.stack()
    bare: list[float] = []
    sealed: list[float] = []
    async with _booted(image, bench) as guest:

        async def write(output: MaskedOutput, grant: Grant) -> None:
            await _print(guest, output)

        for _ in range(ROUNDS):
            bare.append(SIZE / MB / await _seconds_bare(guest))
            sealed.append(SIZE / MB / await seconds_until_sealed(stack.admin_url, bench.folder, write, SIZE))
        alone = await _Lines(stack, bench, guest).measure(stalled=False)
        beside = await _Lines(stack, bench, guest).measure(stalled=True)
    shares = [a / b for a, b in zip(sealed, bare, strict=True)]
    taken = f"{IMAGE}, TCG, {SIZE // MB} MB, median of {ROUNDS}"
    over = f"{LINES} lines, one at a time; TCG; `leveret logs --follow` on a terminal"
    shown = "line in a guest → follower's terminal"
    return [
        Result("guest's output, bare channel", median(bare), "MB/s", compared_with=taken),
        Result("log, guest → sealed", median(sealed), "MB/s", compared_with=f"{taken}; 10 secrets masked"),
        Result(NAME, median(shares), "ratio", 0.8, "higher", f"median of {ROUNDS} rounds' ratios"),
        Result(f"{shown}, p50", median(alone), "ms", compared_with=over),
        Result(f"{shown}, p99", percentile(alone, 0.99), "ms", 250, compared_with=over),
        Result(
            f"{shown}, p99, beside one who stalls", percentile(beside, 0.99), "ms", 250,
            compared_with="two follow the same log, and one was stopped",
        ),
    ]  # fmt: skip


@asynccontextmanager
async def _booted(image: StoredImage, bench: Bench) -> AsyncIterator[GuestClient]:
    about = image.architecture
    spec = MachineSpec(os.uname().machine, about.machine, about.cpu, about.console, memory_mib=512, network_card=False)
    files = await boot_files(image)
    async with Cages() as cages, cages.cage("logs", spec, Network.NONE) as cage:
        async with Machine.start(spec, files, bench.folder / "logs-guest", cage=cage) as machine:
            await machine.wait_port_open(LIMIT)
            async with GuestClient.connect(machine.guest_socket, hello_timeout=LIMIT) as guest:
                yield guest


async def _print(guest: GuestClient, output: MaskedOutput) -> None:
    async with guest.exec(OUTPUT) as process:
        async for _, data in process.output():
            await output.append(data)


async def _seconds_bare(guest: GuestClient) -> float:
    began = time.perf_counter()
    async with asyncio.timeout(LIMIT), guest.exec(OUTPUT) as process:
        received = sum([len(data) async for _, data in process.output()])
    if received != SIZE:
        raise RuntimeError(f"{received} of {SIZE} bytes came")
    return time.perf_counter() - began


@dataclass(frozen=True)
class _Lines:
    """Lines that go into the guest, out of `cat` there, and over the whole way to a follower."""

    stack: Stack
    bench: Bench
    guest: GuestClient

    async def measure(self, *, stalled: bool) -> list[float]:
        """Milliseconds from giving a line to the guest until it is shown. `stalled`: beside a follower that is not."""
        taken: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()

        async def serve(worker: PlayedWorker, grant: Grant) -> None:
            await worker.status(grant, AttemptState.RUNNING)
            async with sent(outlet, worker, grant, self.bench.folder) as output:
                taken.set_result(await self._give(output, grant, stalled))

        url = self.stack.admin_url
        async with (
            asyncio.timeout(LIMIT),
            bulk_outlet(url) as outlet,
            PlayedWorker.running(url, 1, serve),
            Submitter.running(url, lambda event: None) as submitter,
        ):
            await submitter.submit(MANIFEST)
            return await taken

    async def _give(self, output: MaskedOutput, grant: Grant, stalled: bool) -> list[float]:
        job, task = grant.facts.job, grant.manifest.tasks[0].name
        async with (
            Follower.following(self.stack.amqp_url, job, task) as follower,
            Follower.following(self.stack.amqp_url, job, task) as other,
            self.guest.exec(["cat"], stdin=True) as process,
            asyncio.TaskGroup() as group,
        ):

            async def append() -> None:
                async for _, data in process.output():
                    await output.append(data)

            group.create_task(append())
            await process.write(b"line 0\n")
            await follower.until_shown(0)
            await other.until_shown(0)
            if stalled:
                other.stall()
            given: dict[int, float] = {}
            for number in range(1, LINES + 1):
                await asyncio.sleep(random.uniform(*GAP))
                given[number] = time.perf_counter()
                await process.write(b"line %d\n" % number)
            await follower.until_shown(LINES)
            process.close_input()
        return [1000 * (follower.shown[number] - at) for number, at in given.items()]
