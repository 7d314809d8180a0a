"""Whoever reads our output may stall: the connection lives on meanwhile."""

import asyncio
import os
import sys

import pytest

from leveret_client.follow import LogBytes
from leveret_client.output import LogOutput, Output


async def test_a_pipe_that_is_full_does_not_stop_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w") as writer:
        monkeypatch.setattr(sys, "stdout", writer)
        body = os.urandom(300_000)  # more than a pipe holds
        output = LogOutput(Output(as_json=False), headings=False)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            showing = group.create_task(output.show(LogBytes(1, "build", 0, body)))
            heart = group.create_task(asyncio.sleep(0.05))
            await heart
            assert not showing.done()
            assert await asyncio.to_thread(reader.read, len(body)) == body
