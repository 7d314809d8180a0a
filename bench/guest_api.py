"""The guest API over a socket pair: the agent's and the host's code without a machine between them."""

import time

from bench.result import MB, Result, percentile
from bench.setting import Bench
from leveret_guestapi import GuestClient, local_agent

TRIPS = 500
OUTPUT = 200 * MB
FILE = 100 * MB
PIECE = 256 * 1024


async def measure(bench: Bench) -> list[Result]:
    """Ask, let a command write, and write a file."""
    async with local_agent() as socket, GuestClient.connect(socket) as guest:
        trips = await _round_trips(guest)
        output = await _output(guest)
        began = time.perf_counter()
        await guest.write_file(str(bench.folder / "written"), bytes(FILE))
        written = FILE / MB / (time.perf_counter() - began)
    over = "agent as a process, socket pair"
    return [
        Result("guest API round trip, p50", 1000 * percentile(trips, 0.5), "ms", 1.5, compared_with=over),
        Result("guest API round trip, p99", 1000 * percentile(trips, 0.99), "ms", compared_with=over),
        Result("guest API, a command's output", output, "MB/s", 20, "higher", over),
        Result("guest API, writing a file", written, "MB/s", 40, "higher", over),
    ]


async def _round_trips(guest: GuestClient) -> list[float]:
    seconds: list[float] = []
    for _ in range(TRIPS):
        began = time.perf_counter()
        await guest.stat("/")
        seconds.append(time.perf_counter() - began)
    return seconds


async def _output(guest: GuestClient) -> float:
    """Megabytes per second of what one command writes."""
    received = 0
    began = time.perf_counter()
    async with guest.exec(["head", "-c", str(OUTPUT), "/dev/zero"]) as process:
        async for _, data in process.output():
            received += len(data)
    if received != OUTPUT:
        raise RuntimeError(f"{received} of {OUTPUT} bytes came")
    return received / MB / (time.perf_counter() - began)
