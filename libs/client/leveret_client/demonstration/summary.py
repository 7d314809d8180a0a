"""The end of the demo: the result, what was built, and where the time went."""

import asyncio
import hashlib
import os
import urllib.request
from http import HTTPStatus
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote

from rich.table import Table
from rich.text import Text

from leveret_client.output import STYLES, Output, size
from leveret_proto.messages import Artifact, JobEvent, JobView, Timings
from leveret_runtime.away import backoff

#: Seconds for an answer of the logsink's HTTP server.
HTTP_LIMIT = 30.0
#: Seconds until an artifact that a job ended with must be served.
ARRIVAL_LIMIT = 60.0


class DownloadError(Exception):
    """An artifact could not be fetched whole."""


async def download(artifact: Artifact, folder: Path) -> Path:
    """Fetch an artifact over HTTP into `folder` and check it. Raises DownloadError.

    An artifact is safe at the broker when its job ends, and on the server a moment later: it is asked for until then.
    """
    if artifact.url is None or not artifact.url.startswith(("http://", "https://")):
        raise DownloadError(f"{artifact.name}: no link to it came")
    folder.mkdir(parents=True, exist_ok=True)
    # the name is a guest's: one plain file below `folder`, whatever it says
    target = folder / (quote(artifact.name, safe=" +,@=~").lstrip(".") or "artifact")
    try:
        async with asyncio.timeout(ARRIVAL_LIMIT):
            for delay in backoff():
                digest = await asyncio.to_thread(_fetch, artifact.url, target)
                if digest is not None:
                    break
                await asyncio.sleep(delay)
    except TimeoutError:
        raise DownloadError(f"{artifact.name}: not on the server after {ARRIVAL_LIMIT:.0f} s") from None
    except OSError as error:
        raise DownloadError(f"{artifact.name}: {error}") from None
    if digest != artifact.sha256:
        raise DownloadError(f"{artifact.name}: what came is not what was built (SHA-256 differs)")
    os.chmod(target, 0o755)
    return target


def _fetch(url: str, target: Path) -> str | None:
    """Store what `url` serves and give its SHA-256 in hex; None where it is not there (yet)."""
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(url, timeout=HTTP_LIMIT) as answer, target.open("wb") as out:
            while piece := answer.read(1024 * 1024):
                digest.update(piece)
                out.write(piece)
    except HTTPError as error:
        error.close()
        if error.code == HTTPStatus.NOT_FOUND:
            return None
        raise
    return digest.hexdigest()


def show_summary(output: Output, end: JobEvent | JobView, prepared: float, started: float) -> None:
    """Print the job's result and where the time went.

    Args:
        prepared: seconds for image and source.
        started: seconds from there until the job was submitted.
    """
    if output.as_json:
        return
    table = Table("step", "seconds", "", box=None, header_style="dim")
    table.columns[1].justify = "right"
    for name, seconds, note in _rows(end, prepared, started):
        table.add_row(name, f"{seconds:.1f}", note)
    output.line()
    output.line((f"job {end.facts.job}: ", "bold"), (end.status, f"bold {STYLES[end.status]}"), f"  {end.reason}",
                f"  {end.detail}" if end.detail else "")  # fmt: skip
    output.console.print(table)


def show_artifact(output: Output, artifact: Artifact, path: Path) -> None:
    if output.as_json:
        output.document("artifact", artifact.model_dump(mode="json") | {"file": str(path)})
    else:
        output.line(("artifact ", "dim"), Text(str(path), style="bold").plain, f"  {size(artifact.bytes)}")


def _rows(end: JobEvent | JobView, prepared: float, started: float) -> list[tuple[str, float, str]]:
    timings = end.timings or Timings()
    rows: list[tuple[str, float | None, str]] = [
        ("image and source", prepared, "cached from the second run on"),
        ("broker, database, services", started, ""),
    ]
    if isinstance(end, JobEvent) and end.queued_seconds is not None:
        # an attempt counts as started when its guest has answered: the boot has a row of its own
        rows.append(("queued", max(0.0, end.queued_seconds - (timings.boot or 0.0)), ""))
    rows += [("boot", timings.boot, ""), ("setup", timings.setup, "clone the sources")]
    rows += [(f"task {task.name}", task.seconds, task.state) for task in end.tasks]
    rows += [("artifacts", timings.artifacts, ""), ("the build, all told", timings.total, "")]
    return [(name, seconds, note) for name, seconds, note in rows if seconds is not None]
