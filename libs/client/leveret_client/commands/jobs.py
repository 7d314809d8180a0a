"""`leveret show`, `list`, `cancel`, `retry`, `priority`: ask the dispatcher about jobs, or to do something to one."""

import click

from leveret_client import exits
from leveret_client.follow import Following
from leveret_client.options import Settings, broker_options
from leveret_client.output import LogOutput
from leveret_client.running import run
from leveret_client.watching import watch
from leveret_proto.messages import JobStatus, SubmissionAccepted

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


@click.command()
@click.argument("job", type=JOB)
@click.option("--follow", "-f", is_flag=True, help="Show the log live; the exit status is the build's.")
@click.option("--message-id", help="Retrying again under the same one gives the same job.")
@broker_options
def retry(settings: Settings, job: int, follow: bool, message_id: str | None) -> None:
    """Run the manifest of JOB, which has ended, again as a new job."""

    async def work() -> int:
        async with settings.client() as client:
            accepted = await client.retry(job, message_id=message_id)
        _show_accepted(settings, job, accepted, aside=follow)
        return await watch(settings, Following(accepted.job), LogOutput(settings.output)) if follow else exits.OK

    run(work)


def _show_accepted(settings: Settings, job: int, accepted: SubmissionAccepted, *, aside: bool) -> None:
    output = settings.output
    if output.as_json:
        output.document(accepted.TYPE, accepted)
    elif aside:
        output.say(f"job {accepted.job}", "bold")
    elif output.terminal:
        output.line((f"job {accepted.job}", "bold"), f" runs job {job} again")
    else:
        click.echo(str(accepted.job))


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("job", type=JOB)
@click.argument("priority", type=click.IntRange(-100, 100), metavar="N")
@broker_options
def priority(settings: Settings, job: int, priority: int) -> None:
    """Give JOB, which waits, the priority N (-100 to 100). Higher goes first among the owner's jobs."""

    async def work() -> int:
        async with settings.client() as client:
            view = await client.prioritize(job, priority)
        if settings.output.as_json:
            settings.output.document("job", view)
        else:
            settings.output.line(f"job {job} waits with priority {view.priority}")
        return exits.OK

    run(work)
