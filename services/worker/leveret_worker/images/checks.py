"""Checking images: that a description can be used, that a stored image is what it was, that it boots."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from leveret_worker.images.errors import ImageError
from leveret_worker.images.recipes import Recipe, load_recipe, recipe_names
from leveret_worker.images.store import ImageStore, StoredImage

_SHELL_LIMIT = 20.0


@dataclass(frozen=True)
class Finding:
    """What was looked at, and how it is."""

    subject: str
    fault: str | None = None
    note: str = "good"


def check_descriptions(directory: Path, names: tuple[str, ...]) -> Iterator[Finding]:
    """Look at the descriptions under `directory`: all, or those of the images named.

    A name that only the store knows is passed over.
    """
    known = recipe_names(directory)
    for name in names or known:
        subject = f"{name} description"
        try:
            recipe = load_recipe(directory, name)
            fault = script_fault(recipe)
        except ImageError as error:
            yield Finding(subject, str(error))
            continue
        untried = recipe.description.untried
        yield Finding(subject, fault, f"good as far as it can be told; never built: {untried}" if untried else "good")


def script_fault(recipe: Recipe) -> str | None:
    """What a shell says that only parses the recipe and the guest's scripts."""
    guest = recipe.description.guest
    scripts = {
        "recipe": recipe.script.read_text(encoding="utf-8"),
        "guest.preamble": guest.preamble,
        "guest.install_packages": guest.install_packages,
        "guest.add_repository": guest.add_repository,
        "guest.power_off": guest.power_off,
    }
    for key, script in scripts.items():
        done = subprocess.run(
            ["/bin/sh", "-n", "-s"], input=script, capture_output=True, text=True, timeout=_SHELL_LIMIT, check=False
        )
        if done.returncode != 0:
            return f"{key} is no shell script: {' '.join(done.stderr.split())}"
    return None


def check_stored(store: ImageStore, names: tuple[str, ...]) -> Iterator[tuple[Finding, StoredImage | None]]:
    """Compare stored images, all or those named, with their digests; each with the image where it is whole."""
    for pointer in store.pointers():
        name = str(pointer.parent.relative_to(store.root / "names"))
        if names and name not in names:
            continue
        subject = f"{name} {pointer.name} stored"
        try:
            image = store.find(name, pointer.name)
            store.verify(image)
        except ImageError as error:
            yield Finding(subject, str(error)), None
        else:
            yield Finding(subject), image
