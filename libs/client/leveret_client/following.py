"""Following one job over the broker: the shell around `Following`."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from leveret_client.errors import NoAnswer, NotFound
from leveret_client.follow import Following, LogBytes
from leveret_client.subscription import LogPiece, Subscription
from leveret_proto.messages import Event, JobView, LogEvent
from leveret_runtime.away import backoff

if TYPE_CHECKING:
    from leveret_client.client import Client

#: Seconds within which a job that was just submitted must be known to the dispatcher.
ARRIVAL_LIMIT = 3.0
#: Seconds of silence after which the services are asked how things stand.
QUIET = 10.0
QUIET_AFTER_END = 1.0
#: Seconds after the job's end within which its logs must be told.
SEAL_LIMIT = 60.0


async def follow(
    client: "Client", job: int, state: Following, subscription: Subscription | None
) -> AsyncIterator[Event | LogBytes]:
    """Give what is to be shown of `job`, until it has ended and its logs are told or SEAL_LIMIT has passed."""
    loop = asyncio.get_running_loop()
    if subscription is None:
        # bound before anything is asked: what happens from here on arrives, what happened before is in the answers
        view = await _arrived(client, job)
        subscription = await client.subscribe()
        await subscription.bind_job(view.facts)
        await subscription.bind_tail(view.facts.visibility, view.facts.owner, job)
        state.on_view(await client.show(job))
    await _look(client, state)
    deadline: float | None = None
    while True:
        async for piece in _fill(client, state):
            yield piece
        if state.finished:
            return
        if state.end is not None:
            deadline = deadline or loop.time() + SEAL_LIMIT
            if loop.time() >= deadline:
                return
        received = await subscription.next(QUIET if state.end is None else QUIET_AFTER_END)
        if received is None:
            if state.end is None:
                state.on_view(await client.show(job))
            await _look(client, state)
        elif isinstance(received, LogPiece):
            shown = state.on_piece(received.chunk, received.body)
            if shown is not None:
                yield shown
        elif state.on_event(received) and not isinstance(received, LogEvent):
            yield received


async def _arrived(client: "Client", job: int) -> JobView:
    """Give the job as it stands; one that was submitted this moment may still be on its way. Raises NotFound."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + ARRIVAL_LIMIT
    for delay in backoff():
        try:
            return await client.show(job)
        except NotFound:
            if loop.time() + delay > deadline:
                raise
        await asyncio.sleep(delay)
    raise AssertionError("delays never end")


async def _fill(client: "Client", state: Following) -> AsyncIterator[LogBytes]:
    """Give what history has of the stretches that did not come live."""
    while (hole := state.hole()) is not None:
        try:
            _, data = await client.history(state.job, attempt=hole.attempt, task=hole.task, offset=hole.offset)
        except NotFound:
            data = b""
        except NoAnswer:
            return  # the logsink is away; the hole stays, and is asked for again
        shown = state.on_history(hole, data)
        if shown is not None:
            yield shown


async def _look(client: "Client", state: Following) -> None:
    """Ask which logs are stored. A logsink that does not answer is no reason to stop following."""
    try:
        reply, _ = await client.history(state.job, attempt=state.end.attempt if state.end is not None else None)
    except (NotFound, NoAnswer):
        return  # nothing stored yet, or the logsink is away: later events and pieces tell
    state.on_list(reply)
