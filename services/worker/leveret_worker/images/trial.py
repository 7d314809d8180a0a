"""Booting a stored image up to its agent's hello, as a worker's guests are."""

import tempfile
from pathlib import Path

from leveret_guestapi import GuestApiError
from leveret_worker.booting import boot_files, say_hello
from leveret_worker.images.checks import Finding
from leveret_worker.images.errors import ImageError
from leveret_worker.images.store import StoredImage
from leveret_worker.qemu import Accelerator, Cages, MachineError, MachineSpec, Network, probe_boot, probe_emulator

BOOT_LIMIT = 120.0
"""Seconds a guest may take without KVM on a busy host."""
MEMORY_MIB = 512


async def check_boot(image: StoredImage, limit: float = BOOT_LIMIT) -> Finding:
    """Boot `image` without KVM and without network, and say whether its agent answered within `limit` seconds."""
    architecture = image.architecture
    spec = MachineSpec(
        architecture=image.manifest.architecture,
        machine=architecture.machine,
        cpu=architecture.cpu,
        console=architecture.console,
        accelerator=Accelerator.TCG,
        memory_mib=MEMORY_MIB,
    )
    subject = f"{image.manifest.name} {image.manifest.architecture} boot"
    with tempfile.TemporaryDirectory(prefix="leveret-image-") as directory:
        try:
            async with Cages() as cages, cages.cage("image-check", spec, Network.NONE) as cage:
                result = await probe_emulator(spec, cage=cage)
                if result.offered:
                    result = await probe_boot(
                        spec,
                        await boot_files(image),
                        Path(directory) / "machine",
                        lambda guest_socket: say_hello(guest_socket, limit),
                        cage=cage,
                        deadline=limit,
                    )
        except (GuestApiError, ImageError, MachineError) as error:
            return Finding(subject, str(error))
    if not result.offered:
        return Finding(subject, result.reason)
    return Finding(subject, note=f"good: its agent answered after {result.seconds:.1f} s")
