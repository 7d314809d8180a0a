"""`leveret show`, `list` and `cancel`: ask the dispatcher about jobs, or to end one."""

import click

from leveret_client import exits
from leveret_client.options import Settings, broker_options
from leveret_client.running import run
from leveret_proto.messages import JobStatus

JOB = click.IntRange(min=1, max=2**63 - 1)


@click.command()
@click.argument("job", type=JOB)
@broker_options
def show(settings: Settings, job: int) -> None:
    """Show JOB as it stands."""

    async def work() -> int:
        async with settings.client() as client:
            settings.output.job(await client.show(job))
        return exits.OK

    run(work)


@click.command(name="list")
@click.option("--status", "statuses", multiple=True, type=click.Choice([str(status) for status in JobStatus]))
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True)
@click.option("--before", type=JOB, help="Only jobs with smaller numbers.")
@broker_options
def list_jobs(settings: Settings, statuses: tuple[str, ...], limit: int, before: int | None) -> None:
    """List the owner's jobs, newest first."""

    async def work() -> int:
        async with settings.client() as client:
            wanted = [JobStatus(status) for status in statuses]
            reply = await client.list(before=before, limit=limit, statuses=wanted)
        settings.output.jobs(reply.jobs)
        if reply.more and settings.output.terminal:
            settings.output.say(f"older jobs: --before {reply.jobs[-1].facts.job}", "dim")
        return exits.OK

    run(work)


@click.command()
@click.argument("job", type=JOB)
@broker_options
def cancel(settings: Settings, job: int) -> None:
    """Cancel JOB. A job that has ended stays as it is."""

    async def work() -> int:
        async with settings.client() as client:
            reply = await client.cancel(job)
        if settings.output.as_json:
            settings.output.document(reply.TYPE, reply)
        elif reply.cancelled:
            settings.output.line(f"job {job} is cancelled")
        else:
            settings.output.line(f"job {job} had ended already" + (f": {reply.job.status}" if reply.job else ""))
        return exits.OK

    run(work)
