"""Finding an image's description and recipe by name, and telling whether they changed."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from leveret_worker.images.errors import ImageError
from leveret_worker.images.model import ImageDescription, check_name, parse_image


@dataclass(frozen=True)
class Recipe:
    """An image's description with the script that makes it."""

    name: str
    description: ImageDescription
    script: Path
    digest: str
    """SHA-256 over what both files say (not over comments in `image.yml`): a stored image with another one is stale."""


def load_recipe(directory: Path, name: str) -> Recipe:
    """Read `<directory>/<name>/image.yml` and find its recipe; an alias leads to the image that has it.

    Raises:
        ImageError: there is none of that name, or it can't be used.
    """
    check_name(name)
    path = directory / name / "image.yml"
    if not path.is_file():
        for other in recipe_names(directory):
            recipe = load_recipe(directory, other)
            if name in recipe.description.aliases:
                return recipe
        known = ", ".join(recipe_names(directory)) or "none"
        raise ImageError(f"there is no recipe for {name}: the known images are {known}")
    description = parse_image(path.read_text(encoding="utf-8"), str(path))
    script = (path.parent / description.recipe).resolve()
    if not script.is_relative_to(directory.resolve()):
        raise ImageError(f"{path}: recipe: {description.recipe} lies outside {directory}")
    if not script.is_file():
        raise ImageError(f"{path}: recipe: there is no file {script}")
    digest = hashlib.sha256(description.model_dump_json().encode() + b"\0" + script.read_bytes()).hexdigest()
    return Recipe(name, description, script, digest)


def recipe_names(directory: Path) -> list[str]:
    """The names of all images that have a description, sorted."""
    return sorted(str(path.parent.relative_to(directory)) for path in directory.glob("**/image.yml"))
