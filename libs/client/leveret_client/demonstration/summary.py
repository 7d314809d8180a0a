"""The end of the demo: the result, what was built, and where the time went."""

from pathlib import Path

from rich.table import Table
from rich.text import Text

from leveret_client.downloading import Remote, download, file_name
from leveret_client.output import STYLES, Output, size
from leveret_proto.messages import Artifact, JobEvent, JobView, Timings


async def fetch(artifact: Artifact, folder: Path) -> Path:
    """Fetch an artifact over HTTP into `folder`, as a program that may be run. Raises DownloadError."""
    target = folder / file_name(artifact.name)
    await download(Remote(artifact.name, artifact.url or "", artifact.bytes, artifact.sha256), target)
    target.chmod(0o755)
    return target


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
