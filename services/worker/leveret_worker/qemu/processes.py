"""Ending child processes without racing asyncio for their exit status."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

BURIAL_LIMIT = 10.0
"""Seconds the kernel has to take down a killed process."""


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    status: int
    output: str
    errors: str
    """The end of its standard error, on one line."""


@contextlib.contextmanager
def kill_switch(process: asyncio.subprocess.Process) -> Iterator[Callable[[], None]]:
    """A function that kills `process`; called at the latest when the context ends.

    asyncio's own `Process.kill` polls first, which takes the exit status from asyncio's watcher: it then reports 255.
    A pidfd needs no poll and can't hit another process.
    """
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:  # ended and buried already
        yield lambda: None
        return

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)

    try:
        yield kill
    finally:
        kill()
        os.close(handle)


async def bury(process: asyncio.subprocess.Process) -> None:
    """Take the exit status of a killed process, and read its pipes to their end, else asyncio keeps them open."""
    async with asyncio.timeout(BURIAL_LIMIT):
        for stream in (process.stdout, process.stderr):
            while stream is not None and await stream.read(65536):
                pass
        await process.wait()


@contextlib.contextmanager
def _to_read(content: bytes) -> Iterator[int]:
    """A descriptor to read `content` from. Not a pipe: a process that ends at once would close it under our writing."""
    descriptor = os.memfd_create("leveret-input")
    try:
        os.write(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


async def finish(command: list[str], *, limit: float, requests: bytes = b"") -> Finished:
    """Run a command that writes little to its end, with `requests` as its standard input.

    Raises:
        OSError: it can't be started.
        TimeoutError: it did not end within `limit` seconds, and was killed.
    """
    pipe = asyncio.subprocess.PIPE
    with _to_read(requests) as given:
        process = await asyncio.create_subprocess_exec(*command, stdin=given, stdout=pipe, stderr=pipe)
    with kill_switch(process) as kill:
        try:
            async with asyncio.timeout(limit):
                output, errors = await process.communicate()
        except BaseException:
            kill()
            await bury(process)
            raise
    assert process.returncode is not None
    shown = " ".join(errors.decode(errors="replace").split())[-500:]
    return Finished(process.returncode, output.decode(errors="replace"), shown)
