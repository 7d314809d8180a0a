"""`python -m leveret_worker.images`: build, list and check guest images."""

import os
import platform
from pathlib import Path

import click

from leveret_worker.images.build import build_image
from leveret_worker.images.errors import ImageError
from leveret_worker.images.model import recipes_directory
from leveret_worker.images.progress import StepProgress
from leveret_worker.images.recipes import load_recipe, recipe_names
from leveret_worker.images.store import ImageStore, default_store

store_option = click.option(
    "--store", type=click.Path(path_type=Path, file_okay=False), envvar="LEVERET_IMAGE_STORE",
    help="The store's directory. [default: leveret/images in the user's cache folder]",
)  # fmt: skip
recipes_option = click.option(
    "--recipes", type=click.Path(path_type=Path, exists=True, file_okay=False), envvar="LEVERET_IMAGE_RECIPES",
    help="A directory of image descriptions to use in place of Leveret's own.",
)  # fmt: skip


@click.group()
def main() -> None:
    """Make and look after the guest images that builds run in."""


@main.command()
@click.argument("image")
@click.option("--arch", default=platform.machine(), show_default=True, help="The guest's architecture.")
@click.option("--mirror", envvar="LEVERET_MIRROR", help="URL of the package archive to take everything from.")
@click.option("--force", is_flag=True, help="Build even if the stored image is from the same recipe.")
@store_option
@recipes_option
def build(image: str, arch: str, mirror: str | None, force: bool, store: Path | None, recipes: Path | None) -> None:
    """Build IMAGE, such as debian/trixie, into the store; prints its digest."""
    # The store's files are read by QEMU under another user, whatever umask we were started with.
    os.umask(0o022)
    try:
        recipe = load_recipe(recipes or recipes_directory(), image)
        progress = StepProgress(f"{recipe.name} {arch}")
        stored = build_image(recipe, arch, _store(store), progress, mirror=mirror, force=force)
    except ImageError as error:
        raise click.ClickException(str(error)) from error
    click.echo(stored.digest)


@main.command(name="list")
@store_option
def list_images(store: Path | None) -> None:
    """List the images in the store: name, architecture, digest, size, when it was made."""
    for image in _store(store).images():
        manifest = image.manifest
        size = f"{image.size / 1_000_000:.0f} MB"
        click.echo(
            f"{manifest.name}\t{manifest.architecture}\t{image.digest[:12]}\t{size}\t{manifest.made.isoformat()}"
        )


@main.command()
@click.argument("images", nargs=-1)
@store_option
@recipes_option
def check(images: tuple[str, ...], store: Path | None, recipes: Path | None) -> None:
    """Check descriptions and stored images (all, or the IMAGES named); exit status 1 if one is faulty."""
    faults = 0
    for subject, fault in _findings(images, _store(store), recipes or recipes_directory()):
        click.echo(f"{subject}: {fault or 'good'}", err=fault is not None)
        faults += fault is not None
    if faults:
        raise SystemExit(1)


def _findings(images: tuple[str, ...], store: ImageStore, recipes: Path) -> list[tuple[str, str | None]]:
    """What was looked at, each with its fault."""
    findings: list[tuple[str, str | None]] = []
    for name in images or recipe_names(recipes):
        try:
            load_recipe(recipes, name)
            findings.append((f"{name} description", None))
        except ImageError as error:
            findings.append((f"{name} description", str(error)))
    for pointer in store.pointers():
        name = str(pointer.parent.relative_to(store.root / "names"))
        if images and name not in images:
            continue
        try:
            store.verify(store.find(name, pointer.name))
            findings.append((f"{name} {pointer.name} stored", None))
        except ImageError as error:
            findings.append((f"{name} {pointer.name} stored", str(error)))
    return findings


def _store(directory: Path | None) -> ImageStore:
    return ImageStore(directory.absolute()) if directory else default_store()


if __name__ == "__main__":
    main()
