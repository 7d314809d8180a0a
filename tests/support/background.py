"""Holds an async context manager open from synchronous code: session-wide servers belong to no test's event loop."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def held_open(make: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[T]:
    """Enters `make()` on a loop in a thread of its own and leaves it there; gives what it yields.

    The thread lives as long as the block: children started in it are tied to it.
    """
    entered: Future[tuple[T, Callable[[], object]]] = Future()

    async def hold() -> None:
        leave = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with make() as value:
            entered.set_result((value, lambda: loop.call_soon_threadsafe(leave.set)))
            await leave.wait()

    def run() -> None:
        try:
            asyncio.run(hold())
        except BaseException as error:
            if entered.done():
                raise
            entered.set_exception(error)

    with ThreadPoolExecutor(1, thread_name_prefix="held-open") as pool:
        running = pool.submit(run)
        value, leave = entered.result()
        try:
            yield value
        finally:
            leave()
            running.result()
