"""What images there are: those in the store, and those that could be built."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from leveret_worker.images.errors import ImageError
from leveret_worker.images.recipes import Recipe, load_recipe, recipe_names
from leveret_worker.images.store import ImageStore, StoredImage

State = Literal["current", "outdated", "foreign", "absent", "untried"]


@dataclass(frozen=True)
class Entry:
    """One image of one architecture."""

    name: str
    architecture: str
    state: State
    description: str
    aliases: tuple[str, ...]
    image: StoredImage | None

    def as_json(self) -> dict[str, Any]:
        """What `leveret-image list --json` prints; `digest`, `bytes` and `made` are null where it is not stored."""
        return {
            "name": self.name,
            "architecture": self.architecture,
            "state": self.state,
            "description": self.description,
            "aliases": list(self.aliases),
            "digest": self.image.digest if self.image else None,
            "bytes": self.image.size if self.image else None,
            "made": self.image.manifest.made.isoformat() if self.image else None,
        }


def inventory(store: ImageStore, recipes: Path) -> list[Entry]:
    """All images, by name and architecture. Descriptions and images that can't be read are left out: `check` tells."""
    known = {recipe.name: recipe for recipe in _readable(recipes)}
    entries: dict[tuple[str, str], Entry] = {}
    for recipe in known.values():
        about = recipe.description
        state: State = "untried" if about.untried else "absent"
        for architecture in about.architectures:
            entry = Entry(recipe.name, architecture, state, about.description, tuple(about.aliases), None)
            entries[recipe.name, architecture] = entry
    for image in store.images():
        name, architecture, about = image.manifest.name, image.manifest.architecture, image.description
        state = _state(image, known.get(name))
        entries[name, architecture] = Entry(name, architecture, state, about.description, tuple(about.aliases), image)
    return [entries[key] for key in sorted(entries)]


def _state(image: StoredImage, recipe: Recipe | None) -> State:
    if recipe is None:
        return "foreign"
    return "current" if recipe.digest == image.manifest.recipe_digest else "outdated"


def _readable(directory: Path) -> list[Recipe]:
    recipes = []
    for name in recipe_names(directory):
        try:
            recipes.append(load_recipe(directory, name))
        except ImageError:
            continue
    return recipes
