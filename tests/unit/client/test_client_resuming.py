"""The resuming subscriber without a broker: its store is entered once at a time, and the block's faults are its own."""

import asyncio
import threading
from dataclasses import dataclass, field

import pytest
from aiormq.exceptions import AMQPConnectionError

from leveret_client import Client, Cursor, CursorMemory, resuming
from leveret_client.resuming import ResumingSubscriber, Wanted
from leveret_runtime.away import BrokerAway

#: Seconds for a thread that must come about.
LIMIT = 10.0


def nobody() -> Client:
    """A client of a broker that can't be reached."""
    return Client("amqp://a:b@127.0.0.1:1/x", "~a")


@dataclass
class SlowStore:
    """Holds up its first `save` until it is told to go on, and says whether two were in it at once."""

    saved: list[int | None] = field(default_factory=list)
    entered: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    overlapped: bool = False
    _alone: threading.Lock = field(default_factory=threading.Lock)

    def load(self) -> Cursor | None:
        return None

    def save(self, cursor: Cursor) -> None:
        if not self._alone.acquire(blocking=False):
            self.overlapped = True
            return
        try:
            self.entered.set()
            assert self.go_on.wait(LIMIT)
            self.saved.append(cursor.offset)
        finally:
            self._alone.release()


async def turns() -> None:
    """Let everybody who can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_cancelled_commit_keeps_others_out_of_the_store_until_it_has_left() -> None:
    store = SlowStore()
    subscriber = ResumingSubscriber(nobody, store, Wanted(), follow=True, on_away=None)
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        cut_short = group.create_task(subscriber.commit(Cursor(offset=5)))
        later = group.create_task(subscriber.commit(Cursor(offset=6)))
        assert await asyncio.to_thread(store.entered.wait, LIMIT)
        for _ in range(2):  # a second cancel does not make it careless either
            cut_short.cancel()
            await turns()
        assert not cut_short.done()
        store.go_on.set()
        await later
    assert cut_short.cancelled()
    assert (store.saved, store.overlapped) == ([5, 6], False)


async def test_what_a_cancelled_commit_saved_is_not_undone_by_an_older_one() -> None:
    store = SlowStore()
    subscriber = ResumingSubscriber(nobody, store, Wanted(), follow=True, on_away=None)
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        cut_short = group.create_task(subscriber.commit(Cursor(offset=5)))
        assert await asyncio.to_thread(store.entered.wait, LIMIT)
        cut_short.cancel()
        store.go_on.set()
    await subscriber.commit(Cursor(offset=4))
    assert store.saved == [5]


def caused(error: Exception) -> Exception:
    error.__cause__ = KeyError("why")
    return error


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ExceptionGroup("mine", [ValueError("a"), KeyError("b")]), id="group"),
        pytest.param(BaseExceptionGroup("mine", [KeyboardInterrupt()]), id="base-group"),
        pytest.param(BrokerAway("another broker"), id="another-broker-is-away"),
        pytest.param(AMQPConnectionError("another broker"), id="another-broker-was-lost"),
        pytest.param(caused(ValueError("a")), id="with-a-cause"),
    ],
)
async def test_what_the_block_raises_comes_out_as_it_is(error: BaseException) -> None:
    cause, context = error.__cause__, error.__context__
    with pytest.raises(type(error)) as raised:
        async with asyncio.timeout(LIMIT), resuming(nobody, CursorMemory()):
            raise error
    assert raised.value is error
    assert (error.__cause__, error.__context__) == (cause, context)


async def test_what_the_store_raises_ends_the_block() -> None:
    class Broken(CursorMemory):
        def load(self) -> None:
            raise LookupError("no cursor table")

    with pytest.raises(LookupError, match="no cursor table"):
        async with asyncio.timeout(LIMIT), resuming(nobody, Broken()) as arrivals:
            await anext(arrivals)


async def test_a_cancelled_block_stays_cancelled() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), resuming(nobody, CursorMemory()) as arrivals:
            await anext(arrivals)
