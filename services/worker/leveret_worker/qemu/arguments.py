"""What a machine looks like, as QEMU's command line. Pure: all that decides it comes in as values.

Every file, socket and disk reaches QEMU as an open file descriptor, so it needs no path of the host and may run as a
user who can reach none.
"""

import enum
import json
from dataclasses import dataclass

GUEST_PORT = "org.leveret.guest.0"
"""Name of the virtio-serial port the agent opens (`/dev/virtio-ports/<name>` in the guest)."""

PORT_ID = "guest"
"""QEMU's id of that port: QMP's VSERPORT_CHANGE is only sent for ports that have one."""

_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


class Accelerator(enum.StrEnum):
    """How the guest's instructions are run."""

    TCG = "tcg"
    KVM = "kvm"


class Network(enum.StrEnum):
    """What the guest can reach."""

    NONE = "none"
    """It has no network card."""
    RESTRICTED = "restricted"
    """It has a card, but reaches neither the host nor anything beyond."""
    EGRESS = "egress"
    """It reaches what the host reaches, through QEMU's user networking."""


@dataclass(frozen=True)
class MachineSpec:
    """A machine, apart from what it boots."""

    architecture: str
    """As `uname -m` says it; picks the emulator."""
    machine: str
    """QEMU's machine type, such as `q35`."""
    cpu: str
    console: str
    """The guest kernel's name for the serial console, such as `ttyS0`."""
    accelerator: Accelerator = Accelerator.TCG
    memory_mib: int = 1024
    vcpus: int = 1
    network: Network = Network.NONE

    def __post_init__(self) -> None:
        if self.memory_mib < 64 or self.vcpus < 1:
            raise ValueError("a machine needs at least 64 MiB of memory and one virtual CPU")

    @property
    def emulator(self) -> str:
        """The command that emulates this architecture."""
        return f"qemu-system-{self.architecture}"


@dataclass(frozen=True)
class Descriptors:
    """The file descriptors QEMU inherits, by what they are."""

    kernel: int
    initrd: int
    base: int
    """The image's root disk, qcow2, read only."""
    overlay: int
    """What this machine alone writes, qcow2 over `base`, read and write."""
    guest: int
    """A listening stream socket: who connects to it talks to the agent."""
    monitor: int
    """A connected stream socket that speaks QMP."""

    def all(self) -> tuple[int, ...]:
        """Every descriptor QEMU must inherit."""
        return (self.kernel, self.initrd, self.base, self.overlay, self.guest, self.monitor)


def qemu_arguments(spec: MachineSpec, descriptors: Descriptors) -> list[str]:
    """The emulator's command line. Its standard output is the guest's serial console."""
    return [
        spec.emulator,
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-sandbox", _SANDBOX),
        *("-machine", spec.machine, "-accel", spec.accelerator.value, "-cpu", spec.cpu),
        *("-smp", str(spec.vcpus), "-m", str(spec.memory_mib)),
        *("-kernel", f"/proc/self/fd/{descriptors.kernel}", "-initrd", f"/proc/self/fd/{descriptors.initrd}"),
        *("-append", kernel_command_line(spec)),
        *_disk(descriptors),
        *_guest_port(descriptors),
        *("-chardev", f"socket,id=monitor,fd={descriptors.monitor}", "-mon", "chardev=monitor,mode=control"),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *_network(spec.network),
    ]


def kernel_command_line(spec: MachineSpec) -> str:
    """What the guest's kernel is told: to end the machine when it panics, and for `init.sh` how the network looks."""
    words = [f"console={spec.console}", "quiet", "panic=-1", "reboot=t"]
    if spec.network is not Network.NONE:
        # Fixed by QEMU's user networking.
        words += ["leveret_address=10.0.2.15/24", "leveret_gateway=10.0.2.2", "leveret_nameserver=10.0.2.3"]
    return " ".join(words)


def _disk(descriptors: Descriptors) -> list[str]:
    # Nothing on this disk outlives the machine, so flushes are left out.
    unsafe = {"direct": False, "no-flush": True}
    base = {
        "driver": "qcow2",
        "node-name": "base",
        "read-only": True,
        "file": {"driver": "file", "filename": "/dev/fdset/1", "cache": unsafe, "read-only": True},
    }
    overlay = {
        "driver": "qcow2",
        "node-name": "overlay",
        "backing": "base",
        "discard": "unmap",
        "cache": unsafe,
        "file": {"driver": "file", "filename": "/dev/fdset/2", "cache": unsafe},
    }
    return [
        *("-add-fd", f"fd={descriptors.base},set=1", "-add-fd", f"fd={descriptors.overlay},set=2"),
        *("-blockdev", json.dumps(base), "-blockdev", json.dumps(overlay)),
        *("-device", "virtio-blk-pci,drive=overlay"),
    ]


def _guest_port(descriptors: Descriptors) -> list[str]:
    return [
        *("-device", "virtio-serial-pci,id=serial"),
        *("-chardev", f"socket,id=agent,fd={descriptors.guest},server=on,wait=off"),
        *("-device", f"virtserialport,bus=serial.0,chardev=agent,id={PORT_ID},name={GUEST_PORT}"),
    ]


def _network(network: Network) -> list[str]:
    if network is Network.NONE:
        return ["-nic", "none"]
    restrict = "on" if network is Network.RESTRICTED else "off"
    return ["-netdev", f"user,id=net,restrict={restrict}", "-device", "virtio-net-pci,netdev=net,romfile="]
