"""`leveret artifacts`: what a job has built, listed or fetched."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from leveret_client import exits
from leveret_client.client import Client
from leveret_client.commands.jobs import JOB
from leveret_client.commands.logs import ATTEMPT
from leveret_client.downloading import Remote, download, file_name
from leveret_client.errors import DownloadError, NotFound
from leveret_client.options import Settings, broker_options
from leveret_client.output import Output, size
from leveret_client.running import run
from leveret_client.text import one_line
from leveret_proto.messages import ArtifactLink
from leveret_runtime.away import backoff

#: Seconds for what a job ended with to come from the broker to the server.
ARRIVAL_LIMIT = 10.0


@click.command()
@click.argument("job", type=JOB)
@click.option("--attempt", type=ATTEMPT, help="Default: the latest.")
@click.option("--download", "folder", type=click.Path(file_okay=False, path_type=Path), help="Fetch them into DIR.")
@click.option("--force", is_flag=True, help="Replace files of DIR that are there and are something else.")
@broker_options
def artifacts(settings: Settings, job: int, attempt: int | None, folder: Path | None, force: bool) -> None:
    """List the artifacts of JOB: name, bytes, SHA-256. Or fetch them over HTTP, each checked against its SHA-256."""

    async def work() -> int:
        async with settings.client() as client:
            found = await stored_artifacts(client, job, attempt)
        if folder is None:
            for one in found:
                _show(settings.output, one)
        else:
            await _fetch(settings.output, found, folder, force=force)
        return exits.OK

    run(work)


async def stored_artifacts(client: Client, job: int, attempt: int | None) -> tuple[ArtifactLink, ...]:
    """Give the artifacts of an attempt that were proved whole, in the manifest's order. Raises NotFound without any.

    Where a job has just ended with some, they are waited for a moment.
    """
    view = await client.show(job)
    told = len(view.artifacts) if view.status.ended and attempt in (None, view.attempt) else 0
    loop = asyncio.get_running_loop()
    deadline = loop.time() + ARRIVAL_LIMIT
    for delay in backoff():
        found = (await client.links(job, attempt=attempt)).artifacts
        if len(found) >= told or loop.time() + delay > deadline:
            break
        await asyncio.sleep(delay)
    if not found:
        raise NotFound(f"job {job} has no artifacts" + ("" if view.status.ended else " yet"))
    return found


def targets(found: Sequence[ArtifactLink], folder: Path) -> list[Path]:
    """Give each artifact's file below `folder`: under its name, and where several share one, with their numbers."""
    names = [file_name(one.name) for one in found]
    count = Counter(names)
    return [
        folder / (f"{one.index}-{name}" if count[name] > 1 else name) for one, name in zip(found, names, strict=True)
    ]


async def _fetch(output: Output, found: Sequence[ArtifactLink], folder: Path, *, force: bool) -> None:
    with _progress(output) as begin:
        for one, target in zip(found, targets(found, folder), strict=True):
            if await asyncio.to_thread(_digest, target) != one.sha256:
                if target.exists() and not force:
                    raise DownloadError(f"{target} is there and is something else; --force replaces it")
                told = begin(one_line(one.name), one.bytes)
                await download(Remote(one_line(one.name), one.url, one.bytes, one.sha256), target, told)
            if output.as_json:
                output.document("artifact", one.model_dump(mode="json") | {"file": str(target)})
            else:
                output.row(str(target), size(one.bytes) if output.terminal else str(one.bytes))


@contextmanager
def _progress(output: Output) -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """Show bars on a terminal, and nothing elsewhere. What is given begins one and gives what moves it."""
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(binary_units=True),
        TransferSpeedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    quiet = output.as_json or not output.errors.is_terminal
    with Progress(*columns, console=output.errors, transient=True, disable=quiet) as bars:

        def begin(name: str, total: int) -> Callable[[int], None]:
            bar = bars.add_task(name, total=total)
            return lambda there: bars.update(bar, completed=there)

        yield begin


def _show(output: Output, one: ArtifactLink) -> None:
    if output.as_json:
        output.document("artifact", one)
    else:
        output.row(one_line(one.name), size(one.bytes) if output.terminal else str(one.bytes), one.sha256)


def _digest(path: Path) -> str | None:
    """Give a file's SHA-256; None where it is no file that can be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
