"""Waiting for one of two things without losing either."""

import asyncio
from collections.abc import Coroutine
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
