"""Celery with tasks that do nothing, over the same broker: a worker as it comes, with a process for each core."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench.peer_environment import SCRIPTS
from leveret_embedded.child import running_child

#: Seconds for one client, its start included.
LIMIT = 60.0


class CeleryPeer:
    """A running Celery worker, and clients that measure it."""

    def __init__(self, programs: Path, environment: Mapping[str, str]) -> None:
        self._programs = programs
        self._environment = environment

    @classmethod
    @asynccontextmanager
    async def running(cls, programs: Path, folder: Path, url: str) -> AsyncIterator["CeleryPeer"]:
        """Run a worker for the time of the block; its queues are in the virtual host of `url`."""
        folder.mkdir()
        pipe = folder / "pipe"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDWR)  # so that a worker may open it before anyone reads
        environment = os.environ | {"BENCH_BROKER": url, "BENCH_PIPE": str(pipe), "PYTHONPATH": str(SCRIPTS)}
        argv: list[str | Path] = [programs / "celery", "--app", "noop_tasks", "worker"]
        try:
            async with running_child(argv, env=environment, cwd=folder, log=folder / "worker.log"):
                peer = cls(programs, environment)
                await peer.rate(1)
                yield peer
        finally:
            os.close(reader)

    async def rate(self, tasks: int) -> float:
        """Give tasks per second, from the first publish until all have run; nobody is told of results."""
        seconds: float = await self._measure("rate", tasks)
        return tasks / seconds

    async def answered_rate(self, tasks: int) -> float:
        """Give tasks per second, from the first publish until the caller has all results."""
        seconds: float = await self._measure("answered", tasks)
        return tasks / seconds

    async def delays(self, tasks: int) -> list[float]:
        """Give the seconds from a task's publish until it ran, one after the other."""
        delays: list[float] = await self._measure("each", tasks)
        return delays

    async def _measure(self, what: str, tasks: int) -> Any:
        argv: list[str | Path] = [self._programs / "python", SCRIPTS / "noop_client.py", what, str(tasks)]
        process = await asyncio.create_subprocess_exec(
            *argv, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            async with asyncio.timeout(LIMIT):
                output, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise RuntimeError(f"Celery's client ended with status {process.returncode}: {errors.decode()[-2000:]}")
        return json.loads(output)
