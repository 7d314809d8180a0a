"""Following a job on the terminal until its end, over lost connections too."""

import asyncio

from leveret_client import exits
from leveret_client.client import Client
from leveret_client.errors import NotReached
from leveret_client.follow import Following, LogBytes
from leveret_client.options import Settings
from leveret_client.output import LogOutput
from leveret_client.subscription import Subscription
from leveret_proto.messages import JobEvent
from leveret_runtime.away import backoff

#: Seconds for which a lost broker is tried again before following is given up.
AWAY_LIMIT = 120.0


async def watch(settings: Settings, state: Following, shown: LogOutput, *, events: bool = True) -> int:
    """Connect and follow until the job's end; the exit status is the build's. Raises ClientError."""
    loop = asyncio.get_running_loop()
    delays = backoff()
    heard = loop.time()
    while True:
        try:
            async with settings.client() as client:
                heard, delays = loop.time(), backoff()
                await follow_on(client, settings, state, shown, events=events)
            return report(settings, state)
        except NotReached as away:
            if loop.time() - heard > AWAY_LIMIT:
                raise
            delay = next(delays)
            shown.break_line()
            settings.output.say(f"leveret: {away}; trying again in {delay:.1f} s", "yellow")
            await asyncio.sleep(delay)


async def follow_on(
    client: Client,
    settings: Settings,
    state: Following,
    shown: LogOutput,
    subscription: Subscription | None = None,
    *,
    events: bool = True,
) -> None:
    """Show what comes of the job until it has ended and its logs are told."""
    async for piece in client.follow(state.job, state=state, subscription=subscription):
        if isinstance(piece, LogBytes):
            await shown.show(piece)
        elif events:
            shown.break_line()
            settings.output.event(piece, aside=True)
    shown.break_line()


def report(settings: Settings, state: Following) -> int:
    """Say what could not be shown, and give the exit status of the build that ended."""
    assert state.end is not None  # following ends with the job alone
    for task in state.untold():
        settings.output.say(
            f"leveret: the log of {task} is not complete; `leveret logs {state.job}` may show more", "yellow"
        )
    if settings.output.as_json and not isinstance(state.end, JobEvent):
        settings.output.document("job", state.end)
    return exits.of_build(state.end.status)
