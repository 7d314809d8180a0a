"""The way out of the worker; the publishers are scripted here, real ones are in the integration tests."""

import asyncio
from typing import Any

import pytest

from leveret_proto.envelope import Parcel
from leveret_runtime.away import BrokerAway
from leveret_worker.outlet import Outlet

PARCEL = Parcel(b"{}", "log.chunk.v1")


class Scripted:
    """A publisher that is lost, or takes what it is sent."""

    def __init__(self, *, lost: bool = False) -> None:
        self.lost = lost
        self.sent: list[str] = []

    async def send(self, exchange: str, key: str, parcel: Parcel, *, app: str) -> None:
        if self.lost:
            raise BrokerAway("RabbitMQ: channel closed")
        self.sent.append(parcel.message_id)


async def test_a_publisher_that_fails_ends_its_session_and_the_next_one_sends() -> None:
    outlet = Outlet("worker")
    broken: Any = Scripted(lost=True)
    good: Any = Scripted()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        sending = group.create_task(outlet.send("leveret.logs", "key", PARCEL))
        async with outlet.over(broken):
            with pytest.raises(BrokerAway, match="channel closed"):
                await outlet.watch()
        assert not sending.done()
        async with outlet.over(good):
            await sending
    assert good.sent == [PARCEL.message_id]


async def test_a_new_session_is_not_blamed_for_the_last_ones_failure() -> None:
    outlet = Outlet("worker")
    broken: Any = Scripted(lost=True)
    good: Any = Scripted()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        sending = group.create_task(outlet.send("leveret.logs", "key", PARCEL))
        async with outlet.over(broken):
            with pytest.raises(BrokerAway):
                await outlet.watch()
        async with outlet.over(good):
            watcher = group.create_task(outlet.watch())
            await sending
            assert not watcher.done()
            watcher.cancel()
