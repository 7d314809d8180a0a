"""`leveret worker`: which workers are given jobs, for operators' accounts."""

import click
from pydantic import ValidationError

from leveret_client import exits
from leveret_client.options import Settings, broker_options
from leveret_client.output import Output
from leveret_client.running import run
from leveret_client.text import one_line
from leveret_proto.envelope import describe
from leveret_proto.messages import ResumeWorker, WorkerReply


def _named(context: click.Context, parameter: click.Parameter, name: str) -> str:
    try:
        return ResumeWorker(worker=name).worker
    except ValidationError as error:
        raise click.BadParameter(f"no worker can have this name: {describe(error)}") from None


@click.group()
def worker() -> None:
    """Drain a worker, or have it take jobs again. Needs an operator's account."""


@worker.command()
@click.argument("name", callback=_named)
@click.option(
    "--limit",
    type=click.FloatRange(min=0, max=1e9, max_open=True),
    metavar="SECONDS",
    help="What still runs there after so long is handed back and runs elsewhere. Default: as the worker's "
    "configuration says.",
)
@broker_options
def drain(settings: Settings, name: str, limit: float | None) -> None:
    """Give the worker NAME no more jobs, now and after its restarts, until it is resumed."""

    async def work() -> int:
        async with settings.client() as client:
            show_standing(settings.output, await client.drain_worker(name, limit=limit))
        return exits.OK

    run(work)


@worker.command()
@click.argument("name", callback=_named)
@broker_options
def resume(settings: Settings, name: str) -> None:
    """Give the worker NAME jobs again, whether it was drained or quarantined."""

    async def work() -> int:
        async with settings.client() as client:
            show_standing(settings.output, await client.resume_worker(name))
        return exits.OK

    run(work)


def show_standing(output: Output, reply: WorkerReply) -> None:
    """Print how a worker stands after a command."""
    if output.as_json:
        output.document(reply.TYPE, reply)
        return
    jobs = "1 job runs there" if reply.running == 1 else f"{reply.running} jobs run there"
    gets = "is given jobs" if reply.halt is None else f"is given no jobs: {one_line(reply.halt.why)}"
    away = "" if reply.live else " (away)"
    output.line((f"worker {one_line(reply.worker)}", "bold"), f"{away} {gets}; {jobs}")
