"""Runs other programs to their end, with a limit; none of them outlives us."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

#: Seconds a program gets to end by itself when we are interrupted.
STOP_LIMIT = 15.0


class ToolError(Exception):
    """A program is missing, failed, or took too long; the text holds the end of what it said."""


async def run_tool(
    argv: Sequence[str | Path],
    *,
    limit: float,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    show_errors: bool = False,
) -> str:
    """Run `argv` and give its standard output.

    Args:
        limit: seconds.
        environment: variables beside ours.
        show_errors: let its standard error through to ours, as for progress.

    Raises:
        ToolError: with the end of its standard error, unless that was shown.
    """
    name = Path(argv[0]).name
    try:
        process = await asyncio.create_subprocess_exec(
            "setpriv", "--pdeathsig=TERM", "--", *argv,
            cwd=cwd, env={**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=None if show_errors else asyncio.subprocess.PIPE,
        )  # fmt: skip
    except FileNotFoundError:
        raise ToolError("setpriv (Debian package util-linux) is missing") from None
    try:
        async with asyncio.timeout(limit):
            output, errors = await process.communicate()
    except TimeoutError:
        raise ToolError(f"{name} took longer than {limit:.0f} s") from None
    finally:
        await _end(process)
    if process.returncode != 0:
        told = (errors or b"").decode(errors="replace").strip()[-1000:]
        raise ToolError(f"{name} ended with status {process.returncode}" + (f": {told}" if told else ""))
    return output.decode(errors="replace")


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_LIMIT):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
