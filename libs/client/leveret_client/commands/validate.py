"""`leveret validate`: judge a manifest, as intake would, without a broker."""

import sys

import click

from leveret_client import exits
from leveret_client.options import json_option
from leveret_client.output import Output
from leveret_proto.manifest import DEFAULT_LIMITS, Reading, read, render


@click.command()
@click.argument("file", type=click.Path(allow_dash=True))
@json_option
def validate(file: str, as_json: bool) -> None:
    """Judge the manifest FILE ('-': standard input) without a broker.

    Exit status: 0 good (there may be warnings), 1 faults, 2 the file can't be read.
    """
    text = read_manifest(file)
    reading = read(text)
    name = "<stdin>" if file == "-" else file
    if as_json:
        _as_json(Output(as_json=True), reading, name)
    else:
        _for_people(reading, text, name)
    raise SystemExit(exits.OK if reading.manifest is not None else exits.FAILED)


def read_manifest(file: str) -> bytes:
    """Give the bytes of `file`, no more than needed to say that it is too big. Raises click.UsageError."""
    try:
        with click.open_file(file, "rb") as stream:
            text: bytes = stream.read(DEFAULT_LIMITS.size * 64)
            return text
    except OSError as error:
        raise click.UsageError(f"{file}: {error.strerror}") from None


def _as_json(output: Output, reading: Reading, name: str) -> None:
    for diagnostic in reading.diagnostics:
        output.document("diagnostic", {"file": name} | diagnostic.model_dump(mode="json"))
    output.document(
        "verdict",
        {
            "file": name,
            "accepted": reading.manifest is not None,
            "faults": len(reading.faults),
            "warnings": len(reading.warnings),
        },
    )


def _for_people(reading: Reading, text: bytes, name: str) -> None:
    click.echo(render(reading.diagnostics, text, name, color=sys.stdout.isatty()), nl=False)
    faults, warnings = len(reading.faults), len(reading.warnings)
    verdict = "good" if reading.manifest is not None else f"{faults} fault{'s' if faults != 1 else ''}"
    noted = f", {warnings} warning{'s' if warnings != 1 else ''}" if warnings else ""
    click.echo(f"{name}: {verdict}{noted}")
