"""Finding an image's description and recipe by name, and telling whether they changed."""

import hashlib
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leveret_worker.images.errors import ImageError
from leveret_worker.images.model import ImageDescription, check_name, merged, parse_image, parse_mapping


@dataclass(frozen=True)
class Recipe:
    """An image's description with the script that makes it."""

    name: str
    description: ImageDescription
    script: Path
    digest: str
    """SHA-256 over what both files say (not over comments in `image.yml`): a stored image with another one is stale."""

    def needs(self, architecture: str) -> dict[str, str]:
        """Commands the recipe calls on this host, each with the Debian package that holds it."""
        foreign = architecture != platform.machine()
        return self.description.needs | (self.description.architectures[architecture].foreign_needs if foreign else {})


def load_recipe(directory: Path, name: str) -> Recipe:
    """Read `<directory>/<name>/image.yml` and find its recipe; an alias leads to the image that has it.

    Raises:
        ImageError: there is none of that name, or it can't be used.
    """
    check_name(name)
    directory = directory.resolve()
    path = directory / name / "image.yml"
    if not path.is_file():
        for other in recipe_names(directory):
            recipe = load_recipe(directory, other)
            if name in recipe.description.aliases:
                return recipe
        known = ", ".join(recipe_names(directory)) or "none"
        raise ImageError(f"there is no recipe for {name}: the known images are {known}")
    description = parse_image(_with_extended(path, directory, ()), str(path))
    script = _beside(path, "recipe", description.recipe, directory)
    digest = hashlib.sha256(description.model_dump_json().encode() + b"\0" + script.read_bytes()).hexdigest()
    return Recipe(name, description, script, digest)


def _with_extended(path: Path, directory: Path, extending: tuple[Path, ...]) -> dict[str, Any]:
    """What a file holds, laid over what the file that it extends holds; `extending`: who extends this one."""
    data = parse_mapping(path.read_text(encoding="utf-8"), str(path))
    name = data.pop("extends", None)
    if name is None:
        return data
    extended = _beside(path, "extends", str(name), directory)
    if extended in (path, *extending):
        raise ImageError(f"{path}: extends: {name} extends this file")
    return merged(_with_extended(extended, directory, (path, *extending)), data)


def _beside(path: Path, key: str, name: str, directory: Path) -> Path:
    """The file that `name` in `image.yml` means, inside `directory`."""
    file = (path.parent / name).resolve()
    if not file.is_relative_to(directory):
        raise ImageError(f"{path}: {key}: {name} lies outside {directory}")
    if not file.is_file():
        raise ImageError(f"{path}: {key}: there is no file {file}")
    return file


def recipe_names(directory: Path) -> list[str]:
    """The names of all images that have a description, sorted."""
    return sorted(str(path.parent.relative_to(directory)) for path in directory.glob("**/image.yml"))
