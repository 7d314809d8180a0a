"""QEMU: one machine per build, started from a stored image, confined, gone when its context ends.

`arguments` says how a machine looks (pure), `machine` runs one, `probe` finds out which accelerators really work.
"""

from leveret_worker.qemu.arguments import Accelerator, MachineSpec, Network
from leveret_worker.qemu.confinement import QemuUser, qemu_user
from leveret_worker.qemu.errors import MachineError
from leveret_worker.qemu.machine import BootFiles, Machine
from leveret_worker.qemu.probe import ProbeResult, probe_boot, probe_emulator, probe_kvm

__all__ = [
    "Accelerator",
    "BootFiles",
    "Machine",
    "MachineError",
    "MachineSpec",
    "Network",
    "ProbeResult",
    "QemuUser",
    "probe_boot",
    "probe_emulator",
    "probe_kvm",
    "qemu_user",
]
