"""`leveret logs`: stored logs, and with `--follow` the live ones."""

import click

from leveret_client import exits
from leveret_client.client import Client
from leveret_client.commands.jobs import JOB
from leveret_client.errors import NotFound
from leveret_client.follow import Following, LogBytes
from leveret_client.options import Settings, broker_options
from leveret_client.output import LogOutput
from leveret_client.running import run
from leveret_client.watching import watch
from leveret_proto.messages import SETUP_LOG, LogView


@click.command()
@click.argument("job", type=JOB)
@click.option("--follow", "-f", is_flag=True, help="Go on until the job has ended; the exit status is the build's.")
@click.option("--task", help=f"Only this task's log; {SETUP_LOG} for the setup's.")
@click.option("--attempt", type=click.IntRange(min=1), help="Default: the latest.")
@broker_options
def logs(settings: Settings, job: int, follow: bool, task: str | None, attempt: int | None) -> None:
    """Print the logs of JOB."""
    if follow and attempt is not None:
        raise click.UsageError("--follow shows the latest attempt; leave --attempt out")
    shown = LogOutput(settings.output, headings=task is None and settings.output.terminal, task=task)

    async def follow_it() -> int:
        return await watch(settings, Following(job), shown, events=False)

    async def print_it() -> int:
        async with settings.client() as client:
            for log in await stored_logs(client, job, attempt, task):
                await print_log(client, job, log, shown)
        shown.break_line()
        return exits.OK

    run(follow_it if follow else print_it)


async def stored_logs(client: Client, job: int, attempt: int | None, task: str | None) -> list[LogView]:
    """Give the job's stored logs in the order of its tasks, setup first. Raises NotFound where there is none."""
    reply, _ = await client.history(job, attempt=attempt)
    found = [log for log in reply.logs if task is None or log.task == task]
    if not found:
        raise NotFound(f"job {job} has no log" + (f" of {task}" if task is not None else "") + " yet")
    order = {SETUP_LOG: -1} | {ran.name: place for place, ran in enumerate((await client.show(job)).tasks)}
    return sorted(found, key=lambda log: order.get(log.task, len(order)))


async def print_log(client: Client, job: int, log: LogView, shown: LogOutput) -> None:
    """Print what is stored of `log`."""
    offset = 0
    while offset < log.bytes:
        _, data = await client.history(job, attempt=log.attempt, task=log.task, offset=offset)
        if not data:
            return
        shown.show(LogBytes(log.attempt, log.task, offset, data))
        offset += len(data)
