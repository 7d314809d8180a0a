"""QEMU: one machine per build, started from a stored image, confined, gone when its context ends.

`arguments` says how a machine looks (pure), `cage` what it is confined to, `machine` runs one, `template` records one
for others to go on from, `templates` keeps what was recorded, `probe` finds out which accelerators really work.
"""

from leveret_worker.qemu.arguments import Accelerator, MachineSpec, Network
from leveret_worker.qemu.cage import Cage, CageRules, Cages
from leveret_worker.qemu.errors import MachineError
from leveret_worker.qemu.launch import BootFiles
from leveret_worker.qemu.machine import Machine
from leveret_worker.qemu.origin import Origin, origin_of
from leveret_worker.qemu.probe import ProbeResult, probe_boot, probe_emulator, probe_kvm, proof_grounds
from leveret_worker.qemu.template import RecordedFiles, Template, load, record, restored
from leveret_worker.qemu.templates import Templates

__all__ = [
    "Accelerator",
    "BootFiles",
    "Cage",
    "CageRules",
    "Cages",
    "Machine",
    "MachineError",
    "MachineSpec",
    "Network",
    "Origin",
    "ProbeResult",
    "RecordedFiles",
    "Template",
    "Templates",
    "load",
    "origin_of",
    "probe_boot",
    "probe_emulator",
    "probe_kvm",
    "proof_grounds",
    "record",
    "restored",
]
