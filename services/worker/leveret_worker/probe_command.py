"""`leveret-worker probe`: what this host can do, and why."""

import json
import tempfile
from pathlib import Path

import click
import uvloop

from leveret_runtime import logging
from leveret_worker.config import Config
from leveret_worker.examination import Finding, examine


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, an object a line.")
@click.pass_obj
def probe(config: Config, as_json: bool) -> None:
    """Say what this host can do and why, with the worker's configuration.

    Looks at isolation, images (all of their bytes), emulators, KVM (by booting a guest) and recorded guests. A running
    worker is not disturbed. Exit status: 0; 1 where something has to be mended.
    """
    logging.configure("worker", "error")
    with tempfile.TemporaryDirectory(prefix="leveret-probe-") as folder:
        faults = uvloop.run(_print_findings(config, Path(folder), as_json))
    raise SystemExit(1 if faults else 0)


async def _print_findings(config: Config, folder: Path, as_json: bool) -> int:
    """Print each finding as soon as it is there; gives the number of faults."""
    faults = 0
    async for finding in examine(config, folder):
        click.echo(_json(finding) if as_json else finding.line())
        faults += finding.verdict == "fault"
    return faults


def _json(finding: Finding) -> str:
    return json.dumps(finding.document(), ensure_ascii=False)
