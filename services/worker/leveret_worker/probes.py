"""The trials that a worker's capabilities are put to."""

from typing import Protocol

from leveret_guestapi import GuestApiError
from leveret_worker.booting import boot_files, machine_spec, say_hello
from leveret_worker.config import Config
from leveret_worker.images import ImageError, StoredImage
from leveret_worker.qemu import Accelerator, ProbeResult, probe_emulator, probe_kvm, qemu_user


class Probes(Protocol):
    """What the prover tries a host with."""

    async def emulator(self, image: StoredImage) -> ProbeResult:
        """Whether the emulator of the image's architecture starts."""

    async def kvm(self, image: StoredImage) -> ProbeResult:
        """Whether a guest of `image` boots under hardware virtualisation; machines then run as the trial's did."""


class QemuProbes:
    """The real ones. Trials of KVM come one at a time."""

    def __init__(self, config: Config) -> None:
        self._config = config

    async def emulator(self, image: StoredImage) -> ProbeResult:
        return await probe_emulator(machine_spec(self._config, image, Accelerator.TCG), user=qemu_user(Accelerator.TCG))

    async def kvm(self, image: StoredImage) -> ProbeResult:
        limit = self._config.probe_limit
        try:
            return await probe_kvm(
                machine_spec(self._config, image, Accelerator.KVM),
                await boot_files(image),
                self._config.spool / "run" / "kvm-probe",
                lambda guest_socket: say_hello(guest_socket, limit),
                user=qemu_user(Accelerator.KVM),
                deadline=limit,
            )
        except (GuestApiError, ImageError) as error:
            return ProbeResult(Accelerator.KVM, offered=False, reason=f"the probe guest failed: {error}")
