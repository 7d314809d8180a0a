"""Images that boot a hostile agent: an honest image's disk and kernel, with `hostile_agent.py` as process 1."""

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from leveret_worker.images import ImageStore, StoredImage
from tests.support import hostile_agent

AGENT = "/run/leveret/agent.py"


def image_name(behaviour: str) -> str:
    """The name of the image whose agent behaves so."""
    return "hostile/" + behaviour.replace("_", "-")


def hostile_store(root: Path, honest: StoredImage, behaviours: tuple[str, ...]) -> ImageStore:
    """A store with the honest image and one for each behaviour, a name of a function in `hostile_agent.py`."""
    store = ImageStore(root)
    _add(store, honest, honest.manifest.name, list(honest.description.guest.init))
    for behaviour in behaviours:
        assert callable(getattr(hostile_agent, behaviour))
        _add(store, honest, image_name(behaviour), hostile_init(honest, behaviour))
    return store


def hostile_init(honest: StoredImage, behaviour: str) -> list[str]:
    """Process 1 of a hostile guest: what starts the honest agent's file, with the hostile source instead."""
    words = list(honest.description.guest.init)
    at = words.index(AGENT)
    return [*words[:at], "-c", Path(hostile_agent.__file__).read_text(), behaviour]


def _add(store: ImageStore, honest: StoredImage, name: str, init: list[str]) -> None:
    work = store.work_directory(name, honest.manifest.architecture)
    for file in honest.manifest.files:
        target = work / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(honest.directory / file.path, target)
        except OSError:  # another file system
            shutil.copyfile(honest.directory / file.path, target)
    guest = honest.description.guest.model_copy(update={"init": init})
    description = honest.description.model_copy(update={"guest": guest, "aliases": []})
    given = {"name": name, "made": datetime.now(UTC), "description": description}
    store.add(work, honest.manifest.model_copy(update=given))
