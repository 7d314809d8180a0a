"""The trials that a worker's capabilities are put to."""

from pathlib import Path
from typing import Protocol
from uuid import uuid4

from leveret_guestapi import GuestApiError
from leveret_worker.booting import boot_files, machine_spec, say_hello
from leveret_worker.config import Config
from leveret_worker.images import ImageError, StoredImage
from leveret_worker.qemu import (
    Accelerator,
    Cages,
    MachineError,
    Network,
    ProbeResult,
    probe_emulator,
    probe_kvm,
    proof_grounds,
)


class Probes(Protocol):
    """What the prover tries a host with."""

    def grounds(self, arch: str) -> str:
        """What proofs for an architecture rest on: where it has changed, they are worth nothing any more."""

    async def emulator(self, image: StoredImage) -> ProbeResult:
        """Whether the emulator of the image's architecture starts."""

    async def kvm(self, image: StoredImage) -> ProbeResult:
        """Whether a guest of `image` boots under hardware virtualisation; machines then run as the trial's did."""


class QemuProbes:
    """The real ones. Trials of KVM come one at a time."""

    def __init__(self, config: Config, cages: Cages, folder: Path | None = None) -> None:
        """`folder`: for what a trial needs on disk; without it a place in the worker's spool."""
        self._config = config
        self._cages = cages
        self._folder = folder or config.spool / "run"

    def grounds(self, arch: str) -> str:
        return proof_grounds(arch)

    async def emulator(self, image: StoredImage) -> ProbeResult:
        spec = machine_spec(self._config, image, Accelerator.TCG, Network.NONE)
        try:
            async with self._cages.cage(_new_name("probe"), spec, Network.NONE) as cage:
                return await probe_emulator(spec, cage=cage)
        except MachineError as error:
            return ProbeResult(Accelerator.TCG, offered=False, reason=str(error))

    async def kvm(self, image: StoredImage) -> ProbeResult:
        limit = self._config.probe_limit
        try:
            spec = machine_spec(self._config, image, Accelerator.KVM, Network.NONE)
            boot = await boot_files(image)
            async with self._cages.cage(_new_name("probe"), spec, Network.NONE) as cage:
                return await probe_kvm(
                    spec,
                    boot,
                    self._folder / _new_name("kvm"),
                    lambda guest_socket: say_hello(guest_socket, limit),
                    cage=cage,
                    deadline=limit,
                )
        except (GuestApiError, ImageError, MachineError) as error:
            return ProbeResult(Accelerator.KVM, offered=False, reason=f"the probe guest failed: {error}")


def _new_name(purpose: str) -> str:
    """A name of its own for each trial: a service and `leveret-worker probe` may be at it at once."""
    return f"{purpose}-{uuid4().hex[:8]}"
