"""A log's way from a build to the event that proves it complete: how fast, and whether a follower can slow it."""

import asyncio
from contextlib import AsyncExitStack

from bench.follower import Follower
from bench.log_sender import seconds_until_sealed
from bench.plain import plain_rate
from bench.result import MB, Result, median
from bench.setting import Bench
from leveret_embedded.stack import Stack
from leveret_proto.messages import Grant
from leveret_worker.logs import CHUNK
from leveret_worker.masked_output import MaskedOutput

ROUNDS = 3
SIZE = 48 * 1024 * 1024
LINE = b"gcc -O2 -Wall -Wextra -c -o build/objects/module.o src/module.c\n"
_PIECE = (LINE * (CHUNK // len(LINE) + 1))[:CHUNK]
_FIRST = b"line 0\n"


async def measure(bench: Bench) -> list[Result]:
    """Send a long log with the worker's own code, plain messages, and the log again for a follower who reads or not."""
    stack = await bench.stack()
    plain: list[float] = []
    rates: list[float] = []
    read: list[float] = []
    stalled: list[float] = []
    for _ in range(ROUNDS):
        plain.append(await plain_rate(stack.admin_url, size=CHUNK, count=SIZE // CHUNK) * CHUNK / MB)
        rates.append(SIZE / MB / await seconds_until_sealed(stack.admin_url, bench.folder, _write, SIZE))
        read.append(await _rate_while_followed(stack, bench, stalls=False))
        stalled.append(await _rate_while_followed(stack, bench, stalls=True))
    taken = f"one log of {SIZE // 2**20} MiB, 10 secrets masked, median of {ROUNDS}"
    share = "of plain aio-pika publish, confirm, consume of 64 KiB persistent"
    return [
        Result("log, worker → sealed", median(rates), "MB/s", compared_with=taken),
        Result("plain 64 KiB persistent messages", median(plain), "MB/s", compared_with="window of 100, quorum queue"),
        Result("log, worker → sealed, as a share of plain", _shares(rates, plain), "ratio", 0.3, "higher", share),
        Result(
            "log → sealed while its follower stalls", _shares(stalled, read), "ratio", 0.8, "higher",
            "of the rate while its follower reads; the one that stalls is stopped after the first line",
        ),
    ]  # fmt: skip


def _shares(one: list[float], other: list[float]) -> float:
    return median([a / b for a, b in zip(one, other, strict=True)])


async def _write(output: MaskedOutput, grant: Grant) -> None:
    for _ in range(SIZE // CHUNK):
        await output.append(_PIECE)
        await asyncio.sleep(0)  # where a build would wait for its guest


async def _rate_while_followed(stack: Stack, bench: Bench, *, stalls: bool) -> float:
    """MB/s from when the follower has shown the first line, and perhaps stalls, to the seal."""
    waited = 0.0

    async def write(output: MaskedOutput, grant: Grant) -> None:
        nonlocal waited
        began = asyncio.get_running_loop().time()
        follower = await open_.enter_async_context(
            Follower.following(stack.amqp_url, grant.facts.job, grant.manifest.tasks[0].name)
        )
        await output.append(_FIRST)
        await follower.until_shown(0)
        if stalls:
            follower.stall()
        waited = asyncio.get_running_loop().time() - began
        await _write(output, grant)

    async with AsyncExitStack() as open_:
        size = SIZE + len(_FIRST)
        return SIZE / MB / (await seconds_until_sealed(stack.admin_url, bench.folder, write, size) - waited)
