"""Which accelerators really work here.

Nothing is believed because a device file is there: a `/dev/kvm` may open, even run a boot sector, and still hang every
Linux guest.
"""

import asyncio
import dataclasses
import json
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from leveret_worker.qemu.arguments import Accelerator, MachineSpec
from leveret_worker.qemu.cage import Cage
from leveret_worker.qemu.confinement import KVM_DEVICE
from leveret_worker.qemu.errors import MachineError
from leveret_worker.qemu.launch import BootFiles
from leveret_worker.qemu.machine import Machine
from leveret_worker.qemu.processes import finish

KVM_DEADLINE = 8.0
EMULATOR_DEADLINE = 10.0


@dataclasses.dataclass(frozen=True)
class ProbeResult:
    """What was found out, and why."""

    accelerator: Accelerator
    offered: bool
    reason: str
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.accelerator}: {'offered' if self.offered else 'not offered'}: {self.reason}"


async def probe_emulator(spec: MachineSpec, *, cage: Cage) -> ProbeResult:
    """Start the emulator for `spec` without a guest, until it answers on its monitor."""
    started = time.monotonic()

    def result(offered: bool, reason: str) -> ProbeResult:
        return ProbeResult(Accelerator.TCG, offered, reason, time.monotonic() - started)

    if shutil.which(spec.emulator) is None:
        return result(False, f"{spec.emulator} is not installed")
    words = ["-nodefaults", "-no-user-config", "-display", "none", "-S", "-qmp", "stdio"]
    command = [spec.emulator, "-machine", spec.machine, "-accel", "tcg", "-cpu", spec.cpu, "-m", "64", *words]
    requests = b"".join(json.dumps({"execute": word}).encode() + b"\n" for word in ("qmp_capabilities", "quit"))
    try:
        finished = await finish(cage.command(command), limit=EMULATOR_DEADLINE, requests=requests)
    except TimeoutError:
        return result(False, f"{spec.emulator} did not answer in {EMULATOR_DEADLINE:g} s")
    except OSError as error:
        return result(False, f"{spec.emulator} can't be started: {error}")
    if finished.status != 0:
        return result(False, f"{spec.emulator} ended with status {finished.status}: {finished.errors}")
    return result(True, f"{spec.emulator} starts a {spec.machine} machine")


def proof_grounds(architecture: str) -> str:
    """What says that this is still the host a proof was made on: its boot, its kernel, and the emulator's file."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    emulator = shutil.which(f"qemu-system-{architecture}")
    if emulator is None:
        return f"{boot} {os.uname().release}"
    status = os.stat(emulator)
    return f"{boot} {os.uname().release} {emulator} {status.st_ino} {status.st_mtime_ns}"


async def probe_boot(
    spec: MachineSpec,
    boot: BootFiles,
    directory: Path,
    wait_hello: Callable[[Path], Awaitable[object]],
    *,
    cage: Cage,
    deadline: float,
) -> ProbeResult:
    """Boot a real guest under the accelerator of `spec` up to its agent's hello.

    Args:
        spec: the machine.
        boot: a stored image's files.
        directory: for the machine, see `Machine.start`.
        wait_hello: says hello to the agent through the socket at the given path, and returns once it has answered; what
            it raises counts as no answer if it is an OSError or MachineError, and passes through otherwise.
        cage: what QEMU is started in.
        deadline: seconds after which QEMU is killed and the accelerator not offered.
    """
    started = time.monotonic()

    def result(offered: bool, reason: str) -> ProbeResult:
        return ProbeResult(spec.accelerator, offered, reason, time.monotonic() - started)

    try:
        async with asyncio.timeout(deadline):
            async with Machine.start(spec, boot, directory, cage=cage) as machine:
                await machine.wait_port_open(deadline + 1)
                await wait_hello(machine.guest_socket)
    except TimeoutError:
        return result(False, f"the probe guest did not answer in {deadline:g} s")
    except (MachineError, OSError) as error:
        return result(False, f"the probe guest failed: {error}")
    return result(True, f"the probe guest booted and its agent answered, under Linux {os.uname().release}")


async def probe_kvm(
    spec: MachineSpec,
    boot: BootFiles,
    directory: Path,
    wait_hello: Callable[[Path], Awaitable[object]],
    *,
    cage: Cage,
    deadline: float = KVM_DEADLINE,
    device: Path = KVM_DEVICE,
) -> ProbeResult:
    """Whether KVM runs guests here: the obvious reasons why not, then a real boot (see `probe_boot`).

    The accelerator and network card of `spec` are not used; `device` is the device file, for tests.
    """
    fault: str | None = None
    if spec.architecture != os.uname().machine:
        fault = f"this host is no {spec.architecture}"
    elif not device.exists():
        fault = f"{device} is absent"
    elif not cage.may_open(device):
        fault = f"the user QEMU runs as may not open {device}: it must belong to a group (kvm) that this user is in"
    if fault is not None:
        return ProbeResult(Accelerator.KVM, False, fault)
    accelerated = dataclasses.replace(spec, accelerator=Accelerator.KVM, network_card=False)
    return await probe_boot(accelerated, boot, directory, wait_hello, cage=cage, deadline=deadline)
