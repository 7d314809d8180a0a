"""Guest images for tests: taken from the user's cache folder, built there the first time."""

import subprocess
import sys
from functools import cache

from leveret_worker.images import ImageError, StoredImage
from leveret_worker.images.store import ImageStore, default_store

BUILD_LIMIT = 900


@cache
def stored_image(name: str, architecture: str = "x86_64") -> StoredImage:
    """The image `name`, built where the store does not have it yet."""
    store: ImageStore = default_store()
    try:
        return store.find(name, architecture)
    except ImageError:
        command = [sys.executable, "-m", "leveret_worker.images", "build", name]
        subprocess.run(command, check=True, timeout=BUILD_LIMIT)
        return store.find(name, architecture)
