"""Guest images for tests: taken from the user's cache folder, built there where it has none of today's recipe."""

import subprocess
import sys
from functools import cache

from leveret_worker.images import StoredImage, default_store

BUILD_LIMIT = 900


@cache
def stored_image(name: str, architecture: str = "x86_64") -> StoredImage:
    """The image `name` as its recipe makes it today."""
    command = [sys.executable, "-m", "leveret_worker.images", "build", name, "--arch", architecture]
    subprocess.run(command, check=True, timeout=BUILD_LIMIT, stdout=subprocess.DEVNULL)
    return default_store().find(name, architecture)
