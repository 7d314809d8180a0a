import asyncio

import pytest

from leveret_runtime.waits import Pace, first, pause


async def test_first_gives_what_was_wanted() -> None:
    async def wanted() -> int:
        return 7

    assert await first(wanted(), asyncio.Event()) == 7


async def test_first_gives_none_when_stopped_and_what_was_wanted_ends() -> None:
    stop, ended = asyncio.Event(), asyncio.Event()

    async def wanted() -> None:
        try:
            stop.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with asyncio.timeout(5):
        assert await first(wanted(), stop) is None
    assert ended.is_set()


async def test_first_loses_nothing_of_a_queue_when_stopped() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(first(queue.get(), stop))
        await asyncio.sleep(0)
        stop.set()
        await asyncio.sleep(0)
        queue.put_nowait(7)  # just as the wait is being given up
    assert (task.result() == 7) != (queue.qsize() == 1)


async def test_first_passes_a_fault_on() -> None:
    async def wanted() -> None:
        raise OSError("gone")

    with pytest.raises(ExceptionGroup) as raised:
        await first(wanted(), asyncio.Event())
    assert raised.group_contains(OSError, match="gone")


async def test_first_can_be_cancelled() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await first(asyncio.Event().wait(), asyncio.Event())


async def test_pause_ends_with_any_of_its_wakes() -> None:
    wake = asyncio.Event()
    wake.set()
    async with asyncio.timeout(5):
        await pause(60, asyncio.Event(), wake)


async def test_pause_ends_with_its_time() -> None:
    async with asyncio.timeout(5):
        await pause(0.01, asyncio.Event())
        await pause(0.01)
        await pause(0)


async def test_a_pace_spaces_turns() -> None:
    loop = asyncio.get_running_loop()
    pace = Pace(0.02)
    await pace.turn()
    began = loop.time()
    await pace.turn()
    await pace.turn()
    assert loop.time() - began >= 0.03
