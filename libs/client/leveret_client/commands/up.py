"""`leveret up`: the whole of Leveret on this machine, kept running until Ctrl-C."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING

import click

from leveret_client import endpoint, exits
from leveret_client.output import Output
from leveret_client.running import run

if TYPE_CHECKING:
    from leveret_embedded.stack import Network, Options, Stack


def default_owner() -> str:
    """Give the owner that a local stack's submissions are for, in the form of builds.sr.ht's names."""
    return f"~{getuser()}"


@click.command()
@click.option(
    "--executor",
    type=click.Choice(["qemu", "process"]),
    default="qemu",
    show_default=True,
    help="What runs builds: virtual machines, or (no isolation at all) processes on this machine.",
)
@click.option("--base", type=click.Path(path_type=Path, file_okay=False), help="Folder for data and logs.")
@click.option("--owner", default=default_owner, help="For whom jobs are submitted. Default: ~ and your login name.")
@click.option("--slots", type=click.IntRange(1, 256), help="Builds at the same time.")
@click.option("--images", type=click.Path(path_type=Path, file_okay=False), help="The store of guest images.")
@click.option(
    "--source-mirror",
    "mirrors",
    multiple=True,
    metavar="URL=FOLDER",
    help="Take sources below URL from bare repositories in FOLDER; may be given again.",
)
@click.option(
    "--network",
    type=click.Choice(["none", "egress", "full"]),
    default="egress",
    show_default=True,
    help="What guests reach: nothing, the public outside, or all that this machine reaches.",
)
def up(
    executor: str,
    base: Path | None,
    owner: str,
    slots: int | None,
    images: Path | None,
    mirrors: tuple[str, ...],
    network: "Network",
) -> None:
    """Run broker, database and all services on this machine until Ctrl-C.

    Another terminal of the same user needs no arguments then: `leveret submit FILE --follow`.
    """
    from leveret_embedded.stack import Options

    options = Options(
        executor="process" if executor == "process" else "qemu",
        slots=slots,
        images=images,
        source_mirrors=_table(mirrors),
        network=network,
    )
    run(lambda: _up(base or endpoint.cache_folder() / "up", owner, options))


async def _up(base: Path, owner: str, options: "Options") -> int:
    output = Output(as_json=False)
    async with running_stack(base, owner, options, output) as stack:
        output.line(("Leveret runs. ", "bold green"), "Ctrl-C ends it.")
        for name, value in (
            ("broker", stack.amqp_url),
            ("owner", stack.owner),
            ("logs", stack.logs_url),
            ("administrator", stack.admin_url),
            ("database", stack.database_url),
            ("data and logs", str(stack.base)),
        ):
            output.line((f"  {name:<14}", "dim"), value)
        output.line("In another terminal: ", ("leveret submit FILE --follow", "bold"))
        endpoint.write(
            endpoint.Endpoint(amqp_url=stack.amqp_url, owner=stack.owner, logs_url=stack.logs_url, pid=os.getpid())
        )
        try:
            await stack.until_worker_ready()
            output.say("the worker is ready", "dim")
            await asyncio.Event().wait()  # until a signal, or until a part of the stack can't be kept running
        finally:
            endpoint.remove()
    return exits.OK


@asynccontextmanager
async def running_stack(base: Path, owner: str, options: "Options", output: Output) -> AsyncIterator["Stack"]:
    """Run a stack for the time of the block. What is missing or fails is said in a line or two, with exit status 2."""
    from leveret_embedded import MissingProgramError, NoFreePortError, ProgramFailedError, StatementFailedError
    from leveret_embedded.stack import Stack, StackInUseError

    try:
        async with Stack.start(
            base, owner=owner, options=options, progress=lambda text: output.say(f"leveret: {text}", "dim")
        ) as stack:
            yield stack
    except (
        MissingProgramError, NoFreePortError, ProgramFailedError, StatementFailedError, StackInUseError,
    ) as error:  # fmt: skip
        output.say(f"leveret: {error}", "red")
        raise SystemExit(exits.USAGE) from None


def _table(mirrors: tuple[str, ...]) -> dict[str, Path]:
    table: dict[str, Path] = {}
    for mirror in mirrors:
        url, equals, folder = mirror.rpartition("=")
        if not equals or not url or not Path(folder).is_dir():
            raise click.UsageError(f"--source-mirror {mirror!r}: expected URL=FOLDER with a folder that is there")
        table[url] = Path(folder).absolute()
    return table
