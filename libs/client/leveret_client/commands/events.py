"""`leveret events`: print status events as they happen, or those of the past, or go on where the last run stopped."""

from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import click

from leveret_client import exits
from leveret_client.commands.jobs import JOB
from leveret_client.cursor import CursorFile, CursorMemory, CursorStore
from leveret_client.errors import ClientError
from leveret_client.options import Settings, broker_options, read_by
from leveret_client.resuming import Wanted, resuming
from leveret_client.running import run
from leveret_client.subscription import LogPiece
from leveret_client.times import parse_since


@click.command()
@click.option("--public", is_flag=True, help="Everybody's public jobs, too.")
@click.option("--workers", is_flag=True, help="Workers that join, leave or change, too.")
@click.option("--job", type=JOB, help="Only this job.")
@click.option(
    "--since",
    callback=read_by(lambda text: parse_since(text, datetime.now(UTC))),
    help="What happened since: 90s, 15m, 2h, 3d, 1w ago, or 2026-07-01T12:00:00Z.",
)
@click.option("--from-job", type=JOB, help="What happened since this job was submitted.")
@click.option("--follow", "-f", is_flag=True, help="After the past, go on with what happens.")
@click.option(
    "--cursor", type=click.Path(dir_okay=False, path_type=Path),
    help="Keep in this file how far was printed, and go on from there the next time. A new one begins with --since or "
    "--from-job, or now.",
)  # fmt: skip
@broker_options
def events(
    settings: Settings,
    public: bool,
    workers: bool,
    job: int | None,
    since: datetime | None,
    from_job: int | None,
    follow: bool,
    cursor: Path | None,
) -> None:
    """Print the events of the owner's jobs as they happen, until Ctrl-C.

    With --since, --from-job or --cursor print those of the past, and with --follow go on.
    """
    if since is not None and from_job is not None:
        raise click.UsageError("--since and --from-job both say where to begin; give one of them")

    async def work() -> int:
        if since is None and from_job is None and cursor is None:
            await _live(settings, public=public, workers=workers, job=job)
        begin = since if from_job is None else await _submitted(settings, from_job)
        wanted = Wanted(since=begin or datetime.now(UTC), public=public, workers=workers, job=job)
        await _past(settings, wanted, CursorMemory() if cursor is None else CursorFile(cursor), follow=follow)
        return exits.OK

    run(work)


async def _live(settings: Settings, *, public: bool, workers: bool, job: int | None) -> NoReturn:
    """Print what happens from now on. A lost connection ends it."""
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


async def _past(settings: Settings, wanted: Wanted, store: CursorStore, *, follow: bool) -> None:
    """Print what the replay stream has, each event before the cursor moves past it."""

    def tell_away(error: ClientError, seconds: float) -> None:
        settings.output.say(f"leveret: {error}; trying again in {seconds:.1f} s", "yellow")

    async with resuming(settings.client, store, wanted, follow=follow, on_away=tell_away) as arrivals:
        async for arrival in arrivals:
            if arrival.missed:
                settings.output.say("leveret: events before the next one are no longer kept, and are missing", "yellow")
            settings.output.event(arrival.event)
            await arrival.commit()


async def _submitted(settings: Settings, job: int) -> datetime:
    async with settings.client() as client:
        return (await client.show(job)).submitted_at
