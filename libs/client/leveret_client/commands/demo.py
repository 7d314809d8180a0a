"""`leveret demo`: one real build from manifest to artifact, on this machine, from nothing."""

import asyncio
import shutil
import sys
from importlib import resources
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import click

from leveret_client import endpoint, exits
from leveret_client.client import Client
from leveret_client.commands.up import default_owner, running_stack
from leveret_client.demonstration.scdoc import source_mirror
from leveret_client.demonstration.summary import fetch, show_artifact, show_summary
from leveret_client.demonstration.tools import ToolError, run_tool
from leveret_client.errors import DownloadError
from leveret_client.follow import Following
from leveret_client.options import Settings, json_option
from leveret_client.output import LogOutput, Output
from leveret_client.running import run
from leveret_client.subscription import Subscription
from leveret_client.watching import follow_on, report
from leveret_proto.base import Visibility
from leveret_proto.messages import JobStatus

if TYPE_CHECKING:
    from leveret_embedded.stack import Stack

IMAGE = "debian/trixie"
#: Seconds: an image build downloads some hundred MB.
IMAGE_LIMIT = 3600.0
ARTIFACTS = Path("demo-artifacts")


@click.command()
@json_option
def demo(as_json: bool) -> None:
    """Build scdoc in a virtual machine, from manifest to artifact; the exit status is the build's.

    Makes the guest image and fetches scdoc's source (both cached), starts everything, submits the manifest, shows log
    and events live, and puts what was built into ./demo-artifacts.
    """
    run(lambda: _demo(Output(as_json=as_json)))


async def _demo(output: Output) -> int:
    from leveret_embedded.stack import Options

    _need("git", "setpriv")
    cache = endpoint.cache_folder()
    begun = monotonic()
    try:
        await _image(output)
        mirror = await source_mirror(cache, lambda text: output.say(f"leveret: {text}", "dim"))
    except ToolError as error:
        output.say(f"leveret: {error}", "red")
        return exits.USAGE
    prepared = monotonic() - begun
    options = Options(source_mirrors=mirror, slots=1, fsync=False, fresh=True)
    begun = monotonic()
    async with running_stack(cache / "demo", default_owner(), options, output) as stack:
        return await _build(output, stack, prepared, begun)


async def _image(output: Output) -> None:
    """Make the guest image, unless the store has it."""
    output.say(f"leveret: guest image {IMAGE}", "dim")
    argv = [sys.executable, "-m", "leveret_worker.images", "build", IMAGE]
    await run_tool(argv, limit=IMAGE_LIMIT, show_errors=True)


async def _build(output: Output, stack: "Stack", prepared: float, begun: float) -> int:
    """Submit the manifest, show everything until its end, fetch the artifact."""
    settings = Settings(stack.amqp_url, stack.owner, output)
    async with settings.client() as client:
        subscription = await client.subscribe()
        await subscription.bind_owner(stack.owner, [Visibility.UNLISTED])
        accepted = await client.submit(manifest(), project="demo", note="Leveret's demo", tags=["demo"])
        started = monotonic() - begun
        output.say(f"leveret: job {accepted.job} submitted", "dim")
        await subscription.bind_tail(Visibility.UNLISTED, stack.owner, accepted.job)
        state = Following(accepted.job)
        try:
            await _follow(client, settings, state, subscription, stack)
        except asyncio.CancelledError:
            output.say("leveret: interrupted; stopping everything", "yellow")
            raise
    assert state.end is not None  # following ends with the job alone
    show_summary(output, state.end, prepared, started)
    for artifact in state.end.artifacts:
        try:
            path = await fetch(artifact, ARTIFACTS)
        except DownloadError as error:
            output.say(f"leveret: {error}", "red")
            return exits.FAILED
        show_artifact(output, artifact, path)
    if state.end.status is not JobStatus.SUCCESS:
        output.say(f"leveret: the services' logs are in {stack.base / 'log'}", "yellow")
    return report(settings, state)


async def _follow(
    client: Client, settings: Settings, state: Following, subscription: Subscription, stack: "Stack"
) -> None:
    """Follow the build, and watch that there will be a worker for it."""
    async with asyncio.TaskGroup() as group:
        worker = group.create_task(stack.until_worker_ready())
        await follow_on(client, settings, state, LogOutput(settings.output), subscription)
        worker.cancel()


def manifest() -> bytes:
    """Give the demo's manifest: examples/scdoc.yml, which travels with this package."""
    return (resources.files("leveret_client.demonstration") / "scdoc.yml").read_bytes()


def _need(*programs: str) -> None:
    """Say in one line which programs are missing on this machine, and exit."""
    missing = [program for program in programs if shutil.which(program) is None]
    if sys.platform != "linux" or missing:
        told = f"missing: {', '.join(missing)}" if missing else f"the demo needs Linux, this is {sys.platform}"
        click.echo(f"leveret: {told}", err=True)
        raise SystemExit(exits.USAGE)
