"""Guest images: what they are (`image.yml`), how they are made (recipes), and where they are kept (the store).

`leveret-image build debian/trixie` makes one; the worker opens it with `ImageStore.find`, and keeps it with `using`.
"""

from leveret_worker.images.errors import ImageError
from leveret_worker.images.initrd import build_initrd
from leveret_worker.images.model import ArchitectureDescription, GuestDescription, ImageDescription
from leveret_worker.images.store import ImageStore, StoredImage, default_store

__all__ = [
    "ArchitectureDescription",
    "GuestDescription",
    "ImageDescription",
    "ImageError",
    "ImageStore",
    "StoredImage",
    "build_initrd",
    "default_store",
]
