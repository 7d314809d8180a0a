"""An order to drain: when its limit is over, and that a later order takes its place."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from leveret_worker.drain import DrainOrder


class Ends:
    """Counts how often what runs was to end."""

    def __init__(self) -> None:
        self.count = 0
        self._again = asyncio.Event()

    def __call__(self) -> None:
        self.count += 1
        self._again.set()

    async def next(self) -> None:
        async with asyncio.timeout(5):
            await self._again.wait()
        self._again.clear()


@asynccontextmanager
async def seen_to(order: DrainOrder) -> AsyncIterator[Ends]:
    ends = Ends()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(order.see_to(ends))
        yield ends
        task.cancel()


async def test_what_runs_ends_once_when_the_limit_is_over() -> None:
    order = DrainOrder()
    async with seen_to(order) as ends:
        order.give(0.01)
        await ends.next()
        assert (order.given, ends.count) == (True, 1)
        order.give(0)
        await ends.next()
        assert ends.count == 2


async def test_a_revoked_order_ends_nothing() -> None:
    order = DrainOrder()
    async with seen_to(order) as ends:
        order.give(0)
        order.revoke()
        assert not order.given
        await asyncio.sleep(0)  # it has looked
        await asyncio.sleep(0)
        assert ends.count == 0


async def test_a_later_order_takes_the_place_of_an_earlier_one() -> None:
    order = DrainOrder()
    async with seen_to(order) as ends:
        order.give(1000)
        await asyncio.sleep(0)  # it waits for the first
        order.give(0)
        await ends.next()
        assert ends.count == 1
