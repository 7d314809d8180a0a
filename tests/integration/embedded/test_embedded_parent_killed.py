"""A parent that dies by SIGKILL leaves no broker, port mapper or database server behind."""

import asyncio
import signal
import sys
from pathlib import Path

from tests.support.processes import descendants, until_gone

PARENT = """
import asyncio, sys
from contextlib import AsyncExitStack
from pathlib import Path
from leveret_embedded import postgresql, rabbitmq

async def main(base, programs):
    async with AsyncExitStack() as stack:
        if "postgres" in programs:
            await stack.enter_async_context(postgresql(base / "postgresql", fsync=False))
        if "beam.smp" in programs:
            await stack.enter_async_context(rabbitmq(base / "rabbitmq"))
        print("up", flush=True)
        await asyncio.Event().wait()

asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
"""


async def _start(base: Path, *programs: str) -> tuple[asyncio.subprocess.Process, set[int]]:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, base, *programs, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert parent.stdout is not None
    async with asyncio.timeout(60):
        assert await parent.stdout.readline() == b"up\n"
    family = set(descendants(parent.pid)) - {parent.pid}
    names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in family}
    assert set(programs) <= names
    return parent, family


async def test_sigkill_of_the_parent_ends_everything(tmp_path: Path) -> None:
    parent, family = await _start(tmp_path, "beam.smp", "epmd", "postgres")
    parent.kill()
    await parent.wait()
    await until_gone(family)


async def test_ctrl_c_ends_everything_in_order(tmp_path: Path) -> None:
    parent, family = await _start(tmp_path, "postgres")
    parent.send_signal(signal.SIGINT)
    await parent.wait()
    await until_gone(family)
    assert "database system is shut down" in (tmp_path / "postgresql/postgresql.log").read_text()
