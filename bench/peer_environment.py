"""The peers' programs, in a virtual environment of their own: measured beside Leveret, never imported by it."""

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

#: What runs in the peers' Python, and what it needs.
SCRIPTS = Path(__file__).parent / "peers"
LOCK = SCRIPTS / "peers.lock"
ENVIRONMENT = Path(__file__).parent / ".peers"
#: Seconds.
INSTALL_LIMIT = 240.0


class PeersUnavailable(Exception):
    """The peers can't be installed here; the text says why."""


async def installed() -> Path:
    """Give the folder of the peers' programs; install them first where that has not been done.

    Raises:
        PeersUnavailable: there is no network, for one.
    """
    programs = ENVIRONMENT / "bin"
    stamp = ENVIRONMENT / "installed"
    # an environment holds the path of its Python, and of itself
    state = hashlib.sha256(LOCK.read_bytes() + f"{os.path.realpath(sys.executable)} {ENVIRONMENT}".encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == state:
        return programs
    print("  installing the peers into bench/.peers", flush=True)
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    try:
        async with asyncio.timeout(INSTALL_LIMIT):
            await _run(sys.executable, "-m", "venv", ENVIRONMENT)
            quiet = ("--disable-pip-version-check", "--quiet", "--quiet", "--no-input", "--retries", "1")
            await _run(programs / "python", "-m", "pip", *quiet, "install", "--require-hashes", "-r", LOCK)
    except TimeoutError:
        raise PeersUnavailable(f"installing them took more than {INSTALL_LIMIT:.0f} s") from None
    stamp.write_text(state)
    return programs


async def _run(*argv: str | Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        last = output.decode(errors="replace").strip().rpartition("\n")[2]
        raise PeersUnavailable(f"they can't be installed: {last or f'status {process.returncode}'}")
