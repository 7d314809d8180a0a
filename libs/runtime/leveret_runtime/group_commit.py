"""Group commit: what many tasks ask for one by one is done together, in the batches that form by themselves.

While one batch is under way, what is asked meanwhile gathers for the next. So a lone request waits for nobody, and
under load a transaction's cost is shared.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class GroupCommit(Generic[T, R]):
    """Turns `work`, which takes requests by the batch, into something to ask for one."""

    def __init__(self, work: Callable[[Sequence[T]], Awaitable[Sequence[R]]], most: int) -> None:
        """`work` gives one outcome for each request, in their order; at most `most` are given to it at a time."""
        self._work = work
        self._most = most
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._turn = asyncio.Lock()

    async def ask(self, request: T) -> R:
        """Have `request` done, and give its outcome. Raises what `work` raises."""
        outcome: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, outcome))
        try:
            async with self._turn:
                while not outcome.done():  # whoever had the turn before may have done it along with others
                    await self._do_some()
        finally:
            self._waiting = [entry for entry in self._waiting if entry[1] is not outcome]
            outcome.cancel()
        return outcome.result()

    async def _do_some(self) -> None:
        batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        try:
            outcomes = await self._work([request for request, _ in batch])
        except Exception as error:
            for _, outcome in batch:
                if not outcome.done():
                    outcome.set_exception(error)
            return
        except asyncio.CancelledError:
            # the one that did it for all is gone; the others are done by the next
            self._waiting = batch + self._waiting
            raise
        for (_, outcome), done in zip(batch, outcomes, strict=True):
            if not outcome.done():
                outcome.set_result(done)
