"""`leveret logs`: stored logs, and with `--follow` the live ones; `leveret links`: where they are over HTTP."""

import click

from leveret_client import exits
from leveret_client.client import Client
from leveret_client.commands.jobs import JOB
from leveret_client.errors import NotFound
from leveret_client.follow import Following, LogBytes
from leveret_client.options import Settings, broker_options, read_by
from leveret_client.output import LogOutput
from leveret_client.running import run
from leveret_client.times import parse_span
from leveret_client.watching import watch
from leveret_proto.messages import SETUP_LOG, LogView
from leveret_proto.sizes import parse_size
from leveret_proto.tails import skipped

ATTEMPT = click.IntRange(min=1, max=2**31 - 1)


@click.command()
@click.argument("job", type=JOB)
@click.argument("task", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on until the job has ended; the exit status is the build's.")
@click.option(
    "--last",
    callback=read_by(parse_size),
    metavar="SIZE",
    help="Of each log about so much of its end: 4096, 128KiB, 1MiB.",
)
@click.option("--attempt", type=ATTEMPT, help="Default: the latest.")
@broker_options
def logs(settings: Settings, job: int, task: str | None, follow: bool, last: int | None, attempt: int | None) -> None:
    """Print the logs of JOB, or that of TASK alone (@setup: what comes before the tasks).

    In a pipe a log is printed byte for byte. On a terminal its colours are kept, and whatever else a terminal would
    obey is left out.
    """
    if follow and attempt is not None:
        raise click.UsageError("--follow shows the latest attempt; leave --attempt out")
    shown = LogOutput(settings.output, headings=task is None and settings.output.terminal, task=task)

    async def follow_it() -> int:
        return await watch(settings, Following(job, last=last), shown, events=False)

    async def print_it() -> int:
        async with settings.client() as client:
            for log in await stored_logs(client, job, attempt, task):
                await print_log(client, job, log, shown, last)
        shown.break_line()
        return exits.OK

    run(follow_it if follow else print_it)


@click.command()
@click.argument("job", type=JOB)
@click.option("--attempt", type=ATTEMPT, help="Default: the latest.")
@click.option(
    "--for", "seconds", callback=read_by(parse_span), default="1h", show_default=True,
    help="How long links to a private job work: 90s, 15m, 2h, 1w at most.",
)  # fmt: skip
@broker_options
def links(settings: Settings, job: int, attempt: int | None, seconds: int) -> None:
    """Print links to JOB's logs and artifacts.

    Those of a private job are signed: who has one can read what it leads to, and nothing else, until it expires.
    """
    if seconds < 1 or seconds > 7 * 86_400:
        raise click.UsageError("--for: from 1s to 1w")

    async def work() -> int:
        async with settings.client() as client:
            reply = await client.links(job, attempt=attempt, seconds=seconds)
        if settings.output.as_json:
            settings.output.document(reply.TYPE, reply)
            return exits.OK
        if not reply.logs and not reply.artifacts:
            raise NotFound(f"of job {job} nothing is stored yet")
        for name, url in [(log.task, log.url) for log in reply.logs] + [(a.name, a.url) for a in reply.artifacts]:
            settings.output.row(name, url)
        if reply.expires_at is not None:
            settings.output.say(f"leveret: the links work until {reply.expires_at.astimezone():%Y-%m-%d %H:%M}", "dim")
        return exits.OK

    run(work)


async def stored_logs(client: Client, job: int, attempt: int | None, task: str | None) -> list[LogView]:
    """Give the job's stored logs in the order of its tasks, setup first. Raises NotFound where there is none."""
    reply, _ = await client.history(job, attempt=attempt)
    found = [log for log in reply.logs if task is None or log.task == task]
    if not found:
        raise NotFound(f"job {job} has no log" + (f" of {task}" if task is not None else "") + " yet")
    order = {SETUP_LOG: -1} | {ran.name: place for place, ran in enumerate((await client.show(job)).tasks)}
    return sorted(found, key=lambda log: order.get(log.task, len(order)))


async def print_log(client: Client, job: int, log: LogView, shown: LogOutput, last: int | None) -> None:
    """Print what is stored of `log`, or about `last` bytes of its end, from the start of a line on."""
    cut = last is not None and log.bytes > last
    offset = log.bytes - last - 1 if last is not None and cut else 0
    while offset < log.bytes:
        _, data = await client.history(job, attempt=log.attempt, task=log.task, offset=offset)
        data = data[: log.bytes - offset]
        if not data:
            return
        left_out = skipped(data, ends=offset + len(data) == log.bytes) if cut else 0
        cut = False
        await shown.show(LogBytes(log.attempt, log.task, offset + left_out, data[left_out:]))
        offset += len(data)
