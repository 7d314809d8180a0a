"""`leveret up`: what it leaves for other processes, and that nothing of it outlives it."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from leveret_client import exits
from tests.support.processes import descendants, until_gone
from tests.support.sockets import listening
from tests.support.system import manifest

LIMIT = 90


@dataclass
class Up:
    """A `leveret up` whose worker is ready, and how other processes find it."""

    process: asyncio.subprocess.Process
    cache: Path

    @property
    def environment(self) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("LEVERET_")}
        return ours | {"XDG_CACHE_HOME": str(self.cache)}

    async def leveret(self, *arguments: str | Path) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "leveret_client.main", *arguments,
            env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip


@asynccontextmanager
async def running_up(folder: Path) -> AsyncIterator[Up]:
    environment = os.environ | {"XDG_CACHE_HOME": str(folder)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "leveret_client.main", "up", "--executor", "process", "--owner", "~tester",
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    family: list[int] = []
    try:
        assert process.stderr is not None
        told = b""
        async with asyncio.timeout(LIMIT):
            while b"the worker is ready" not in told:
                line = await process.stderr.readline()
                assert line, told.decode()
                told += line
        yield Up(process, folder)
    finally:
        if process.returncode is None:
            family = descendants(process.pid)
            process.kill()
            await process.communicate()
            await until_gone(family)


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[Up]:
    async with running_up(tmp_path / "cache") as running:
        yield running


async def building(up: Up, folder: Path) -> asyncio.subprocess.Process:
    """Submit a build without end from another process; return its follower when it runs."""
    path = folder / "build.yml"
    path.write_text(manifest(("run", "echo it runs; sleep 3600")))
    follower = await up.leveret("submit", path, "--follow")
    assert follower.stdout is not None
    async with asyncio.timeout(LIMIT):
        while (line := await follower.stdout.readline()) != b"it runs\n":
            assert line
    return follower


def ports(family: list[int]) -> set[int]:
    return {port for pid in family for port in listening(pid)}


async def until_nothing_is_left(family: list[int], taken: set[int]) -> None:
    await until_gone(family)
    for port in taken:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


async def test_ctrl_c_ends_all_of_it_in_order(up: Up, tmp_path: Path) -> None:
    path = tmp_path / "build.yml"
    path.write_text(manifest(("a", "echo hello")))
    submitted = await up.leveret("submit", path, "--follow")
    async with asyncio.timeout(LIMIT):
        out, errors = await submitted.communicate()
    assert submitted.returncode == exits.OK, errors
    assert b"hello\n" in out
    follower = await building(up, tmp_path)
    family = descendants(up.process.pid)
    taken = ports(family)
    assert len(taken) >= 3  # broker, database, logs

    up.process.send_signal(2)
    async with asyncio.timeout(LIMIT):
        said, _ = await up.process.communicate()
    assert up.process.returncode == exits.INTERRUPTED
    for name in ("broker", "owner", "logs", "administrator", "database"):
        assert re.search(rf"^\s*{name}\s+\S+", said.decode(), re.MULTILINE)
    await until_nothing_is_left(family, taken)
    assert not (up.cache / "leveret" / "up.json").exists()
    follower.kill()
    await follower.communicate()


async def test_nothing_outlives_it_when_it_is_killed(up: Up, tmp_path: Path) -> None:
    follower = await building(up, tmp_path)
    family = descendants(up.process.pid)
    taken = ports(family)
    assert len(family) > 12  # broker, its port mapper, database, five services, the build
    up.process.kill()
    await up.process.communicate()
    await until_nothing_is_left(family, taken)
    follower.kill()
    await follower.communicate()
    refused = await up.leveret("list")
    async with asyncio.timeout(LIMIT):
        await refused.communicate()
    assert refused.returncode == exits.USAGE  # what it left behind names a process that is gone
