"""The manual is enough to write an agent from: one that shares no code with ours serves our client."""

from __future__ import annotations

import ast
import asyncio
import inspect
import socket

import pytest

from leveret_guestapi import STDOUT, ExitStatus, GuestClient, GuestError
from tests.support import foreign_agent
from tests.support.foreign_agent import OUTPUT, ForeignAgent


def serve(port: socket.socket) -> None:
    with port:
        try:
            ForeignAgent(port).serve()
        except EOFError:
            pass


async def test_an_agent_written_from_the_manual_serves_our_client() -> None:
    ours, theirs = socket.socketpair()
    serving = asyncio.get_running_loop().run_in_executor(None, serve, theirs)
    try:
        async with GuestClient.connect(ours, hello_timeout=20, beat_interval=0.05) as guest:
            assert guest.hello.system == "Plan 9"
            done = await guest.run(["anything"], output_limit=len(OUTPUT))
            assert (done.stdout == OUTPUT, done.stderr, done.status) == (True, b"", ExitStatus(3, None, False))
            async with guest.exec("slowly") as process:
                size = 0
                async for stream, data in process.output():
                    assert stream == STDOUT
                    size += len(data)
                    await asyncio.sleep(0)
            assert size == len(OUTPUT)
            with pytest.raises(GuestError, match="ENOSYS"):
                await guest.stat("/")
    finally:
        ours.close()
        await asyncio.wait_for(serving, 20)


def test_it_shares_no_code_with_ours() -> None:
    imported = {
        name
        for node in ast.walk(ast.parse(inspect.getsource(foreign_agent)))
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [])
    }
    assert imported == {"__future__"}
    assert "leveret" not in inspect.getsource(foreign_agent)
