"""`leveret-image`: build, list and check guest images, and remove what is left of old ones."""

import asyncio
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from leveret_worker.images.build import build_image
from leveret_worker.images.checks import Finding, check_descriptions, check_stored
from leveret_worker.images.errors import ImageError
from leveret_worker.images.garbage import collect_garbage
from leveret_worker.images.inventory import Entry, inventory
from leveret_worker.images.model import recipes_directory
from leveret_worker.images.progress import StepProgress
from leveret_worker.images.recipes import load_recipe
from leveret_worker.images.store import ImageStore, default_store
from leveret_worker.images.trial import BOOT_LIMIT, check_boot

store_option = click.option(
    "--store", type=click.Path(path_type=Path, file_okay=False), envvar="LEVERET_IMAGE_STORE",
    callback=lambda _context, _option, value: ImageStore(value.absolute()) if value else default_store(),
    help="The store's directory. [default: leveret/images in the user's cache folder]",
)  # fmt: skip
recipes_option = click.option(
    "--recipes", type=click.Path(path_type=Path, exists=True, file_okay=False), envvar="LEVERET_IMAGE_RECIPES",
    callback=lambda _context, _option, value: value or recipes_directory(),
    help="A directory of image descriptions to use in place of Leveret's own.",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class _Group(click.Group):
    """Says faults of images in one line, as other wrong use."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except ImageError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group)
@click.version_option(package_name="leveret")
def main() -> None:
    """Make and look after the guest images that builds run in."""
    # The store's files are read by QEMU under another user, whatever umask we were started with.
    os.umask(0o022)


@main.command()
@click.argument("images", nargs=-1, required=True)
@click.option("--arch", default=platform.machine(), show_default=True, help="The guest's architecture.")
@click.option("--mirror", envvar="LEVERET_MIRROR", help="URL of the package archive to take everything from.")
@click.option("--force", is_flag=True, help="Build even if the stored image is from the same recipe.")
@store_option
@recipes_option
def build(
    images: tuple[str, ...], arch: str, mirror: str | None, force: bool, store: ImageStore, recipes: Path
) -> None:
    """Build IMAGES, such as debian/trixie, into the store; prints their digests.

    Builds that run on an older one go on with it.
    """
    for recipe in [load_recipe(recipes, image) for image in images]:
        progress = StepProgress(f"{recipe.name} {arch}")
        click.echo(build_image(recipe, arch, store, progress, mirror=mirror, force=force).digest)


@main.command(name="list")
@json_option
@store_option
@recipes_option
def list_images(as_json: bool, store: ImageStore, recipes: Path) -> None:
    """List the images that are in the store or could be built, with their state.

    \b
    current    as its recipe makes it today
    outdated   its recipe has changed since: build it again
    foreign    nothing is known of how it was made
    absent     not built here
    untried    not built here, nor by anybody yet
    """
    entries = inventory(store, recipes)
    if as_json:
        click.echo(json.dumps([entry.as_json() for entry in entries], indent=2))
    elif sys.stdout.isatty():
        Console().print(_table(entries))
    else:
        for entry in entries:
            click.echo("\t".join(_cells(entry)))


def _table(entries: list[Entry]) -> Table:
    table = Table("image", "arch", "state", "digest", "size", "made", box=None, pad_edge=False)
    for entry in entries:
        table.add_row(*_cells(entry))
    return table


def _cells(entry: Entry) -> list[str]:
    image = entry.image
    if image is None:
        return [entry.name, entry.architecture, entry.state, "-", "-", "-"]
    size = f"{image.size / 1_000_000:.0f} MB"
    return [entry.name, entry.architecture, entry.state, image.digest[:12], size, image.manifest.made.isoformat()]


@main.command()
@click.argument("images", nargs=-1)
@click.option("--boot", is_flag=True, help="Also boot each stored image until its agent answers.")
@click.option("--limit", type=float, default=BOOT_LIMIT, show_default=True, help="Seconds a boot may take.")
@store_option
@recipes_option
def check(images: tuple[str, ...], boot: bool, limit: float, store: ImageStore, recipes: Path) -> None:
    """Check descriptions and stored images (all, or the IMAGES named); exit status 1 if one is faulty."""
    faults = 0

    def tell(finding: Finding) -> None:
        nonlocal faults
        faults += finding.fault is not None
        click.echo(f"{finding.subject}: {finding.fault or finding.note}", err=finding.fault is not None)

    _check(images, boot, limit, store, recipes, tell)
    if faults:
        raise SystemExit(1)


def _check(
    names: tuple[str, ...], boot: bool, limit: float, store: ImageStore, recipes: Path, tell: Callable[[Finding], None]
) -> None:
    for finding in check_descriptions(recipes, names):
        tell(finding)
    for finding, image in check_stored(store, names):
        tell(finding)
        if boot and image is not None:
            with store.using(image), StepProgress(f"{image.manifest.name} {image.manifest.architecture}")("boot"):
                booted = asyncio.run(check_boot(image, limit))
            tell(booted)


@main.command()
@click.option("--dry-run", is_flag=True, help="Remove nothing, only say what would go.")
@json_option
@store_option
def gc(dry_run: bool, as_json: bool, store: ImageStore) -> None:
    """Remove what no name stands for and nobody uses: old images, initrds, what killed builds left.

    May be run at any time: what machines and builds of this moment use stays.
    """
    removed = []
    for garbage in collect_garbage(store, dry_run=dry_run):
        removed.append({"what": garbage.what, "path": str(garbage.path), "bytes": garbage.size})
        if not as_json:
            size = f"{garbage.size / 1_000_000:.1f} MB"
            click.echo(f"{garbage.path.relative_to(store.root)}\t{size}\t{garbage.what}")
    if as_json:
        click.echo(json.dumps(removed, indent=2))
