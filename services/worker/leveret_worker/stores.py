"""Where a worker's images and templates lie."""

from pathlib import Path

from leveret_proto.capability import MIB
from leveret_worker.config import Config
from leveret_worker.images import ImageStore, default_store
from leveret_worker.qemu import Templates


def image_store(config: Config) -> ImageStore:
    """The store that guests come from."""
    return ImageStore(config.images) if config.images else default_store()


def templates_directory(config: Config) -> Path:
    """Where recorded guests are kept: beside the images that they were recorded from."""
    return config.templates or image_store(config).root / "templates"


def templates(config: Config) -> Templates:
    """The recorded guests, as this process uses them."""
    return Templates(
        templates_directory(config),
        disk_limit=config.templates_disk_mib * MIB,
        memory_limit=config.templates_memory_mib * MIB,
    )
