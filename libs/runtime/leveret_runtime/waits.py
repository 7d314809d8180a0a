"""Waiting for one of two things without losing either."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


async def first(wanted: Coroutine[Any, Any, T], stop: asyncio.Event) -> T | None:
    """Await `wanted` until `stop` is set; None when it was set first."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(wanted)
        stopped = group.create_task(stop.wait())
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not task.done():
            task.cancel()
            return None
    return task.result()


async def in_own_task(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` as a task of its own, and raise what it raises: for whoever goes on after its failure.

    A task group of Python before 3.13 leaves a cancel request behind on its task when a child fails while the group is
    being left; before 3.11.3 every later `asyncio.timeout` in that task then raises CancelledError in place of
    TimeoutError. In a task of its own that dies with the failure.
    """
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_caught(work))
    outcome = task.result()
    if isinstance(outcome, _Failure):
        raise outcome.error
    return outcome


@dataclass(frozen=True)
class _Failure:
    error: Exception


async def _caught(work: Coroutine[Any, Any, T]) -> T | _Failure:
    try:
        return await work
    except Exception as error:
        return _Failure(error)


class Pace:
    """Turns at least `interval` seconds apart, for work that is cheaper in batches: the first one comes at once."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._next = 0.0

    async def turn(self) -> None:
        """Wait for the next turn."""
        loop = asyncio.get_running_loop()
        if (left := self._next - loop.time()) > 0:
            await asyncio.sleep(left)
        self._next = loop.time() + self._interval


async def pause(seconds: float, *wakes: asyncio.Event) -> None:
    """Wait `seconds`, or less where one of `wakes` is set."""
    if not wakes:
        await asyncio.sleep(seconds)
        return
    async with asyncio.TaskGroup() as group:
        tasks = {group.create_task(event.wait()) for event in wakes}
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
