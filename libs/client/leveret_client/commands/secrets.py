"""`leveret secret`: add, list and remove an owner's secrets. A value is read and sealed, and never shown."""

from collections.abc import Sequence
from typing import Any

import click
from rich.table import Table

from leveret_client import exits
from leveret_client.options import Settings, broker_options
from leveret_client.output import Output
from leveret_client.running import run
from leveret_client.text import one_line
from leveret_proto.messages import MAX_SECRET, SecretKind, SecretView

_FILE = click.Path(allow_dash=True)


class _Mode(click.ParamType[int]):
    """Permission bits in octal, as chmod takes them."""

    name = "mode"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            mode = int(value, 8)
        except ValueError:
            mode = -1
        if not 0 <= mode <= 0o777:
            self.fail(f"{value!r} is no file mode from 000 to 777", param, ctx)
        return mode


@click.group()
def secret() -> None:
    """Keep secrets that manifests name: SSH keys, PGP keys, files."""


@secret.command()
@click.option("--ssh-key", type=_FILE, metavar="FILE", help="An SSH private key; in the guest, ~/.ssh/UUID.")
@click.option("--pgp-key", type=_FILE, metavar="FILE", help="A PGP private key; in the guest, it is imported.")
@click.option("--file", "plain", type=_FILE, metavar="FILE", help="Any file; needs --path.")
@click.option("--path", help="Where the guest gets the file: absolute, or from the build user's home.")
@click.option("--mode", type=_Mode(), help="The file's permission bits, in octal. Default: 600.")
@click.option("--name", help="What manifests may call it besides its UUID: 4 to 511 bytes.")
@broker_options
def add(
    settings: Settings,
    ssh_key: str | None,
    pgp_key: str | None,
    plain: str | None,
    path: str | None,
    mode: int | None,
    name: str | None,
) -> None:
    """Add one secret, read from FILE ('-': standard input), and print its UUID."""
    kind, file = _chosen(ssh_key, pgp_key, plain)
    if kind == "file" and path is None:
        raise click.UsageError("--file needs --path: where the guest gets it.")
    if kind != "file" and (path is not None or mode is not None):
        raise click.UsageError("--path and --mode belong to --file.")
    value = _read(file)

    async def work() -> int:
        async with settings.client() as client:
            added = await client.add_secret(value, kind, name=name, path=path, mode=mode)
        if settings.output.as_json:
            settings.output.document("secret", added)
        elif settings.output.terminal:
            settings.output.line("secret ", (added.uuid, "bold"), f" ({added.kind})")
        else:
            click.echo(added.uuid)
        return exits.OK

    run(work)


@secret.command(name="list")
@broker_options
def list_secrets(settings: Settings) -> None:
    """List the owner's secrets, oldest first."""

    async def work() -> int:
        async with settings.client() as client:
            _show(settings.output, await client.list_secrets())
        return exits.OK

    run(work)


@secret.command()
@click.argument("name_or_uuid")
@broker_options
def rm(settings: Settings, name_or_uuid: str) -> None:
    """Remove the secret NAME_OR_UUID. Jobs that wait and name it will fail."""

    async def work() -> int:
        async with settings.client() as client:
            removed = await client.remove_secret(name_or_uuid)
        if settings.output.as_json:
            settings.output.document("secret", removed)
        else:
            settings.output.line(f"secret {removed.uuid} is removed")
        return exits.OK

    run(work)


def _chosen(ssh_key: str | None, pgp_key: str | None, plain: str | None) -> tuple[SecretKind, str]:
    given: dict[SecretKind, str | None] = {"ssh-key": ssh_key, "pgp-key": pgp_key, "file": plain}
    chosen = [(kind, file) for kind, file in given.items() if file is not None]
    if len(chosen) != 1:
        raise click.UsageError("give one of --ssh-key, --pgp-key and --file.")
    return chosen[0]


def _read(file: str) -> bytes:
    """Read no more than needed to say that it is too long."""
    try:
        with click.open_file(file, "rb") as stream:
            value: bytes = stream.read(MAX_SECRET + 1)
    except OSError as error:
        raise click.UsageError(f"{file}: {error.strerror}") from None
    if len(value) > MAX_SECRET:
        raise click.UsageError(f"{file}: a secret has at most {MAX_SECRET} bytes.")
    return value


def _show(output: Output, secrets: Sequence[SecretView]) -> None:
    if output.as_json:
        for one in secrets:
            output.document("secret", one)
    elif output.terminal:
        table = Table("uuid", "kind", "name", "path", "mode", "added", box=None, header_style="dim")
        for one in secrets:
            table.add_row(*_fields(one))
        output.console.print(table)
    else:
        for one in secrets:
            click.echo("\t".join(_fields(one)))


def _fields(secret: SecretView) -> tuple[str, ...]:
    mode = "" if secret.mode is None else f"{secret.mode:03o}"
    added = secret.added_at.astimezone().isoformat(" ", "seconds")
    return secret.uuid, secret.kind, one_line(secret.name or ""), one_line(secret.path or ""), mode, added
