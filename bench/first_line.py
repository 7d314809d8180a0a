"""From typing `leveret submit FILE --follow` to the first line of the build's log."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

from bench.result import Result, median
from bench.setting import OWNER, PROCESS_IMAGE, Bench

RUNS = 5
LIMIT = 30.0
MANIFEST = f"image: {PROCESS_IMAGE}\ntasks:\n  - greet: echo hello\n"


async def measure(bench: Bench) -> list[Result]:
    """Run the command some times over; the stack's own worker builds in processes of this machine."""
    stack = await bench.stack()
    manifest = bench.folder / "first-line.yml"
    manifest.write_text(MANIFEST)
    environment = os.environ | {"LEVERET_AMQP_URL": stack.amqp_url, "LEVERET_OWNER": OWNER}
    seconds = [await _run(manifest, environment) for _ in range(RUNS)]
    taken = f"process executor, median of {RUNS}; the command's own start included"
    return [Result("leveret submit → first log line", median(seconds), "s", compared_with=taken)]


async def _run(manifest: Path, environment: dict[str, str]) -> float:
    argv = [sys.executable, "-m", "leveret_client.main", "submit", str(manifest), "--follow"]
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(LIMIT):
            line = await process.stdout.readline()
            seconds = time.perf_counter() - began
            await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if not line or process.returncode != 0:
        raise RuntimeError(f"leveret submit ended with status {process.returncode} and first line {line!r}")
    return seconds
