"""Group commit: batches that form by themselves, and a failure or a cancel that concerns whom it should."""

import asyncio
from collections.abc import Sequence

import pytest

from leveret_runtime.group_commit import GroupCommit

LIMIT = 5.0


class Work:
    """Doubles numbers, batch by batch, each when the test lets it."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun = asyncio.Semaphore(0)
        self.go = asyncio.Semaphore(0)

    async def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        self.begun.release()
        await self.go.acquire()
        if 13 in numbers:
            raise ConnectionError("no thirteen")
        return [2 * number for number in numbers]


async def test_what_is_asked_meanwhile_is_done_together() -> None:
    work = Work()
    group = GroupCommit(work, most=3)
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(group.ask(1))]
        await work.begun.acquire()
        asked += [tasks.create_task(group.ask(number)) for number in (2, 3, 4, 5)]
        for _ in range(3):
            work.go.release()
    assert [task.result() for task in asked] == [2, 4, 6, 8, 10]
    assert work.batches == [[1], [2, 3, 4], [5]]


async def test_a_failure_is_that_of_everyone_in_the_batch_and_of_nobody_else() -> None:
    work = Work()
    group = GroupCommit(work, most=10)
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as tasks:
        first = tasks.create_task(group.ask(1))
        await work.begun.acquire()
        failing = [tasks.create_task(_error(group, number)) for number in (13, 14)]
        work.go.release()
        await work.begun.acquire()
        last = tasks.create_task(group.ask(5))
        work.go.release()
        work.go.release()
    assert [first.result(), last.result()] == [2, 10]
    assert [task.result() for task in failing] == ["no thirteen", "no thirteen"]


async def _error(group: GroupCommit[int, int], number: int) -> str:
    with pytest.raises(ConnectionError) as raised:
        await group.ask(number)
    return str(raised.value)


@pytest.mark.parametrize("cancelled", [0, 1])
async def test_a_cancelled_one_takes_nobody_along(cancelled: int) -> None:
    """Whether it is the one that does the batch for all, or one that waits."""
    work = Work()
    group = GroupCommit(work, most=10)
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as tasks:
        blocked = tasks.create_task(group.ask(0))
        await work.begun.acquire()
        pair = [tasks.create_task(group.ask(number)) for number in (1, 2)]
        work.go.release()
        await work.begun.acquire()
        pair[cancelled].cancel()
        for _ in range(3):
            work.go.release()
    assert blocked.result() == 0
    assert pair[cancelled].cancelled()
    assert pair[1 - cancelled].result() == 2 * (2 - cancelled)
