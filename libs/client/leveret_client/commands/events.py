"""`leveret events`: print status events as they happen."""

import click

from leveret_client.options import Settings, broker_options
from leveret_client.running import run
from leveret_client.subscription import LogPiece


@click.command()
@click.option("--public", is_flag=True, help="Everybody's public jobs, too.")
@click.option("--workers", is_flag=True, help="Workers that join, leave or change, too.")
@click.option("--job", type=int, help="Only this job.")
@broker_options
def events(settings: Settings, public: bool, workers: bool, job: int | None) -> None:
    """Print the events of the owner's jobs as they happen, until Ctrl-C."""

    async def work() -> int:
        async with settings.client() as client:
            subscription = await client.subscribe()
            if job is not None:
                await subscription.bind_job((await client.show(job)).facts)
            else:
                await subscription.bind_owner(settings.owner)
            if public:
                await subscription.bind_public()
            if workers:
                await subscription.bind_workers()
            if settings.output.terminal:
                settings.output.say("waiting for events, Ctrl-C ends", "dim")
            async for event in subscription:
                if not isinstance(event, LogPiece):
                    settings.output.event(event)
        raise AssertionError("a subscription ends with its connection only, which raises")

    run(work)
