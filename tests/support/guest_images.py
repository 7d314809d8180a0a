"""Guest images for tests: taken from the user's cache folder, built there where it has none of today's recipe."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

from leveret_guestapi import GuestClient
from leveret_worker.booting import boot_files
from leveret_worker.images import ImageStore, StoredImage, default_store
from leveret_worker.qemu import Cages, Machine, MachineSpec, Network

#: Seconds.
BUILD_LIMIT = 1800
BOOT_LIMIT = 120.0


@cache
def stored_image(name: str, architecture: str = "x86_64") -> StoredImage:
    """The image `name` as its recipe makes it today."""
    command = [sys.executable, "-m", "leveret_worker.images", "build", name, "--arch", architecture]
    subprocess.run(command, check=True, timeout=BUILD_LIMIT, stdout=subprocess.DEVNULL)
    chosen = os.environ.get("LEVERET_IMAGE_STORE")
    return (ImageStore(Path(chosen)) if chosen else default_store()).find(name, architecture)


@asynccontextmanager
async def booted(image: StoredImage, folder: Path) -> AsyncIterator[tuple[Machine, GuestClient]]:
    """A machine with a guest of `image`, without network, under TCG; `folder` is where its files go."""
    about = image.architecture
    spec = MachineSpec(image.manifest.architecture, about.machine, about.cpu, about.console, memory_mib=512)
    files = await boot_files(image)
    async with Cages() as cages, cages.cage("booted", spec, Network.NONE) as cage:
        async with Machine.start(spec, files, folder / "machine", cage=cage) as machine:
            await machine.wait_port_open(BOOT_LIMIT)
            async with GuestClient.connect(machine.guest_socket, hello_timeout=BOOT_LIMIT) as guest:
                yield machine, guest
