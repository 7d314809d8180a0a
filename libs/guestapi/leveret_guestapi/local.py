"""Runs the agent as a child process over a socket pair: no isolation at all, for tests and the `process` executor."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from leveret_guestapi.agent import agent_source

# The agent kills its descendants for at most 10 s, its guard for as long again.
END_LIMIT = 25.0


@asynccontextmanager
async def local_agent(*, python: str = sys.executable) -> AsyncIterator[socket.socket]:
    """A socket connected to a fresh agent that runs as our own user, under the given Python (3.7 or newer).

    When the block is left, or this process dies in whatever way, the agent ends and kills every process it has started.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        source = os.memfd_create("leveret-agent")
        try:
            os.write(source, agent_source())
            os.lseek(source, 0, os.SEEK_SET)
            child = await asyncio.create_subprocess_exec(
                python,
                "-I",
                "-",
                "--fd",
                str(theirs.fileno()),
                stdin=source,
                pass_fds=[theirs.fileno()],
                cwd="/",
                start_new_session=True,
            )
        finally:
            os.close(source)
        theirs.close()
        try:
            yield ours
        finally:
            ours.close()
            await _wait_for_end(child)


async def _wait_for_end(child: asyncio.subprocess.Process) -> None:
    """The closed socket ends the agent; should that fail, SIGTERM to its guard kills it."""
    try:
        async with asyncio.timeout(END_LIMIT):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()
        raise RuntimeError(f"the local agent (process {child.pid}) did not end within {END_LIMIT:g} s") from None
