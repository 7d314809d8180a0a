"""Buildbot with builds that do nothing: a master as it comes (SQLite), and one local worker."""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.peer_environment import SCRIPTS
from leveret_embedded.child import Child, ProgramFailedError, run_to_end, running_child
from leveret_embedded.ports import HOST, reserved_ports

#: That share the worker: Buildbot's rate grows little from 1 to 2, and not beyond.
BUILDERS = 4
WORKER = "bench"
#: Seconds.
SETUP_LIMIT = 30.0
START_LIMIT = 60.0
LIMIT = 60.0


class BuildbotPeer:
    """A running master with its worker."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    @asynccontextmanager
    async def running(cls, programs: Path, folder: Path) -> AsyncIterator["BuildbotPeer"]:
        """Run them for the time of the block, which begins when every builder has built once."""
        folder.mkdir()
        control = folder / "control"
        with reserved_ports(1) as (port,):
            environment = os.environ | {
                "BENCH_CONTROL": str(control),
                "BENCH_PORT": str(port),
                "BENCH_WORKER": WORKER,
                "BENCH_BUILDERS": str(BUILDERS),
            }
            buildbot, worker = programs / "buildbot", programs / "buildbot-worker"
            setting_up: tuple[list[str | Path], ...] = (
                [buildbot, "create-master", "-q", "master"],
                [worker, "create-worker", "-q", "worker", f"{HOST}:{port}", WORKER, WORKER],
            )
            for argv in setting_up:
                await run_to_end(
                    argv, limit=SETUP_LIMIT, env=environment, cwd=folder, log=folder / "setup.log", account=None,
                    pass_fds=(),
                )  # fmt: skip
            shutil.copy(SCRIPTS / "master.cfg", folder / "master")
            async with (
                _started(buildbot, "master", folder, environment) as master,
                _connected(control, master) as streams,
                _started(worker, "worker", folder, environment),
            ):
                peer = cls(*streams)
                await peer.rate(BUILDERS)
                yield peer

    async def rate(self, builds: int) -> float:
        """Give builds per second, from triggering them all at once until all have finished."""
        began = time.perf_counter()
        self._writer.write(b"%d\n" % builds)
        async with asyncio.timeout(LIMIT):
            for _ in range(builds):
                line = await self._reader.readline()
                if line != b"done\n":
                    raise RuntimeError(f"a build of Buildbot's did not succeed: {line!r}")
        return builds / (time.perf_counter() - began)

    async def delays(self, builds: int) -> list[float]:
        """Give the seconds from a build's triggering until it has finished, one after the other."""
        return [1 / await self.rate(1) for _ in range(builds)]


@asynccontextmanager
async def _started(program: Path, what: str, folder: Path, environment: dict[str, str]) -> AsyncIterator[Child]:
    argv: list[str | Path] = [program, "start", "--nodaemon"]
    async with running_child(argv, env=environment, cwd=folder / what, log=folder / f"{what}.log") as child:
        yield child


@asynccontextmanager
async def _connected(control: Path, master: Child) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to the master's control socket when it is there: its way of saying that it is ready."""
    try:
        async with asyncio.timeout(START_LIMIT):
            while True:
                try:
                    reader, writer = await asyncio.open_unix_connection(control)
                    break
                except OSError:
                    if not master.running:
                        raise ProgramFailedError("buildbot", "did not start", master.log) from None
                    await asyncio.sleep(0.05)
    except TimeoutError:
        raise ProgramFailedError("buildbot", f"was not ready after {START_LIMIT:.0f} s", master.log) from None
    try:
        yield reader, writer
    finally:
        writer.close()
