"""What runs below a process, and when it is gone."""

import asyncio
import os
import select
from collections.abc import Iterable
from pathlib import Path


def descendants(pid: int | None = None) -> list[int]:
    """Process ids of `pid` (ours, without one) and of everything below it, itself first."""
    root = os.getpid() if pid is None else pid
    found = [root]
    for parent in found:
        for thread in _listed(Path(f"/proc/{parent}/task")):
            try:
                found += [int(child) for child in (thread / "children").read_text().split()]
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def alive(pids: Iterable[int]) -> list[int]:
    """Those of the processes that run at this moment; one that has ended and is not waited for yet does not."""
    return [pid for pid in pids if not _ended_within(pid, 0)]


async def until_gone(pids: Iterable[int], limit: float = 30.0) -> None:
    """Waits until none of the processes runs any more. Raises TimeoutError."""
    async with asyncio.timeout(limit):
        for pid in pids:
            await asyncio.to_thread(_ended_within, pid, limit)


def _ended_within(pid: int, seconds: float) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)
