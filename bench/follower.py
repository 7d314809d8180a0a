"""A person who follows a log: `leveret logs --follow` as a process of its own, on a terminal."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.setting import OWNER

_NUMBER = re.compile(rb"line (\d+)\b")
#: Bytes of an unfinished line that are kept.
_UNFINISHED = 200


class Follower:
    """The command, and when it showed each line `line NUMBER` (seconds as `time.perf_counter` tells them)."""

    def __init__(self, process: asyncio.subprocess.Process, terminal: int) -> None:
        self._process = process
        self._terminal = terminal
        self._unfinished = b""
        self.shown: dict[int, float] = {}
        self._more = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def following(cls, amqp_url: str, job: int, task: str) -> AsyncIterator["Follower"]:
        """Follow one log of a job for the time of the block."""
        terminal, theirs = os.openpty()
        os.set_blocking(terminal, False)
        argv = [sys.executable, "-m", "leveret_client.main", "logs", str(job), task, "--follow"]
        environment = os.environ | {"LEVERET_AMQP_URL": amqp_url, "LEVERET_OWNER": OWNER}
        loop = asyncio.get_running_loop()
        process = await asyncio.create_subprocess_exec(
            *argv, env=environment, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        follower = cls(process, terminal)
        loop.add_reader(terminal, follower._read)
        try:
            yield follower
        finally:
            loop.remove_reader(terminal)
            process.kill()
            await process.wait()
            os.close(terminal)

    async def until_shown(self, number: int) -> None:
        """Wait until a line has been shown."""
        while number not in self.shown:
            self._more.clear()
            await self._more.wait()

    def stall(self) -> None:
        """Stop reading, for good."""
        self._process.send_signal(signal.SIGSTOP)

    def _read(self) -> None:
        try:
            data = self._unfinished + os.read(self._terminal, 1 << 16)
        except OSError:  # the command has ended; whoever waits for a line has a limit
            asyncio.get_running_loop().remove_reader(self._terminal)
            return
        now = time.perf_counter()
        for found in _NUMBER.finditer(data):
            self.shown.setdefault(int(found[1]), now)
        self._unfinished = data[data.rfind(b"\n") + 1 :][-_UNFINISHED:]
        self._more.set()
