"""How a stored image becomes a machine of this worker: the shape it has, the files it boots, its first word."""

import asyncio
from pathlib import Path

from leveret_guestapi import GuestClient, agent_source
from leveret_proto.capability import Requirement
from leveret_worker.config import Config
from leveret_worker.images import ImageError, StoredImage, build_initrd
from leveret_worker.qemu import Accelerator, BootFiles, MachineSpec, Network


def machine_spec(
    config: Config,
    image: StoredImage,
    accelerator: Accelerator,
    network: Network,
    needed: Requirement | None = None,
) -> MachineSpec:
    """The machine that guests of `image` get here. `network`: what they reach; `needed`: what a job asks for."""
    return MachineSpec(
        architecture=image.manifest.architecture,
        machine=image.architecture.machine,
        cpu=image.architecture.cpu,
        console=image.architecture.console,
        accelerator=accelerator,
        memory_mib=(needed and needed.memory_mib) or config.memory_mib,
        vcpus=(needed and needed.cpus) or config.cpus,
        network_card=network is not Network.NONE,
    )


async def boot_files(image: StoredImage) -> BootFiles:
    """What a machine boots: the image's kernel and disk, and an initrd with our agent.

    Raises:
        ImageError: a file of the image is missing or cut short, or the initrd can't be made.
    """
    return await asyncio.to_thread(_boot_files, image)


def _boot_files(image: StoredImage) -> BootFiles:
    name = image.manifest.name
    try:
        for file in image.manifest.files:
            size = (image.directory / file.path).stat().st_size
            if size != file.size:
                raise ImageError(f"{name}: {file.path} has {size} bytes, not {file.size}: build the image again")
        initrd = build_initrd(image, agent_source())
    except OSError as error:
        raise ImageError(f"{name}: {error.strerror}: {error.filename}: build the image again") from error
    return BootFiles(kernel=image.kernel, initrd=initrd, disk=image.disk)


async def settle(guest_socket: Path, limit: float) -> None:
    """Bring the guest behind the socket to where a template is recorded: its agent has answered, a command has run,
    nothing waits for its disk, and no session is left. Raises GuestApiError."""
    async with GuestClient.connect(guest_socket, hello_timeout=limit) as guest:
        await guest.run("sync")


async def say_hello(guest_socket: Path, limit: float) -> None:
    """Return once the agent behind the socket has answered. Raises GuestApiError."""
    async with GuestClient.connect(guest_socket, hello_timeout=limit):
        pass
