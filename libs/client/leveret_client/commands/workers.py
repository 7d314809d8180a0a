"""`leveret workers` and `explain`: who is there to run jobs, and why a job waits."""

import click
from rich.table import Table
from rich.text import Text

from leveret_client import exits
from leveret_client.commands.jobs import JOB
from leveret_client.options import Settings, broker_options
from leveret_client.output import STYLES, Output
from leveret_client.running import run
from leveret_client.text import one_line
from leveret_proto.messages import ExplainReply, JobMatch, Place, WorkerView


@click.command()
@broker_options
def workers(settings: Settings) -> None:
    """List the workers with their free slots and what they offer, and why one is given no jobs."""

    async def work() -> int:
        async with settings.client() as client:
            found = await client.workers()
        show_workers(settings.output, found)
        return exits.OK

    run(work)


@click.command()
@click.argument("job", type=JOB)
@broker_options
def explain(settings: Settings, job: int) -> None:
    """Say why JOB waits: its place in line, what it depends on, and which workers could run it."""

    async def work() -> int:
        async with settings.client() as client:
            reply = await client.explain(job)
        if settings.output.as_json:
            settings.output.document(reply.TYPE, reply)
        else:
            show_explanation(settings.output, reply)
        return exits.OK

    run(work)


def show_workers(output: Output, found: tuple[WorkerView, ...]) -> None:
    """Print workers: a table on a terminal, tab-separated lines in a pipe."""
    if output.as_json:
        for worker in found:
            output.document("worker", worker)
    elif output.terminal:
        table = Table("worker", "state", "free", "running", "images", "kvm", "tags", box=None, header_style="dim")
        for worker in found:
            state = Text(_state(worker), style="yellow" if worker.draining else "green")
            table.add_row(one_line(worker.worker), state, f"{worker.free}/{worker.slots}", str(worker.running),
                          *(Text(one_line(text)) for text in _offer(worker)))  # fmt: skip
        output.console.print(table)
        for worker in found:
            if worker.halt is not None:
                since = worker.halt.since.astimezone().strftime("%Y-%m-%d %H:%M:%S")
                output.say(f"{one_line(worker.worker)}: {one_line(worker.halt.why)}, since {since}", "yellow")
        if not found:
            output.say("no worker is there", "yellow")
    else:
        for worker in found:
            fields = (worker.worker, _state(worker), str(worker.free), str(worker.slots), str(worker.running),
                      *_offer(worker), worker.halt.why if worker.halt is not None else "")  # fmt: skip
            click.echo("\t".join(one_line(field) for field in fields))


def _state(worker: WorkerView) -> str:
    """`live`, or why it is given no jobs; a halted one may be away."""
    state = "draining" if worker.draining else "live"
    if worker.halt is not None:
        state = worker.halt.kind
    return state if worker.live else f"{state}, away"


def _offer(worker: WorkerView) -> tuple[str, str, str]:
    offer = worker.capabilities
    images = ", ".join(f"{image.arch}:{image.name}" for image in offer.images)
    return images, ", ".join(offer.kvm), ", ".join(offer.tags)


def show_explanation(output: Output, reply: ExplainReply) -> None:
    """Print why a job waits."""
    job = reply.job
    detail = f": {one_line(job.detail)}" if job.detail else ""
    output.line((f"job {job.facts.job}", "bold"), "  ", (job.status, STYLES[job.status]), f"  {job.reason}{detail}")
    if reply.depends_on:
        named = ", ".join(str(number) for number in reply.depends_on)
        output.line(("  waits for   ", "dim"), f"jobs {named}" if len(reply.depends_on) > 1 else f"job {named}")
    if reply.place is not None:
        output.line(("  place       ", "dim"), _place(reply.place))
    for match in reply.workers:
        output.line(("  worker      ", "dim"), f"{one_line(match.worker)}  ", *_match(match))


def _place(place: Place) -> str:
    limit = "" if place.limit is None else f" of at most {place.limit}"
    others = place.owners - 1
    wait = "owner waits" if others == 1 else "owners wait"
    shared = f"; {others} other {wait} for such workers" if others else ""
    return f"{place.place} of the owner's {place.waiting} such jobs; {place.running}{limit} of its jobs run{shared}"


def _match(match: JobMatch) -> tuple[str | tuple[str, str], ...]:
    if match.lack is not None:
        return (("lacks ", "yellow"), f"{match.lack} {one_line(match.lacks or '')}")
    if match.halt is not None:
        return ((match.halt.kind, "yellow"), f": {one_line(match.halt.why)}")
    if match.draining:
        return (("draining", "yellow"), ": it takes no more jobs")
    return (("could run it", "green"), f", {match.free} of {match.slots} slots free")
