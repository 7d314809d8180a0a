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

TRANSLATED_MIB = 256
"""The most memory that translated code may take under TCG."""

_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


class Accelerator(enum.StrEnum):
    """How the guest's instructions are run."""

    TCG = "tcg"
    KVM = "kvm"


class Network(enum.StrEnum):
    """What a guest reaches."""

    NONE = "none"
    """Nothing: it has no network card."""
    EGRESS = "egress"
    """What is reachable from anywhere: neither the host nor private, local and special addresses."""
    FULL = "full"
    """What the host reaches, its loopback included."""


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
    network_card: bool = False
    """Whether it has one; where that leads is up to the cage that QEMU runs in."""

    def __post_init__(self) -> None:
        if self.memory_mib < 64 or self.vcpus < 1:
            raise ValueError("a machine needs at least 64 MiB of memory and one virtual CPU")

    @property
    def emulator(self) -> str:
        """The command that emulates this architecture."""
        return f"qemu-system-{self.architecture}"


@dataclass(frozen=True)
class MemoryFile:
    """A file of the guest memory's size that a machine's memory is mapped from."""

    descriptor: int
    recorded: bool
    """False: this machine's memory is recorded in it. True: it holds what another machine recorded; this one works on a
    private copy, waits for that machine's device state, and goes on where it stopped."""


@dataclass(frozen=True)
class Descriptors:
    """The file descriptors QEMU inherits, by what they are."""

    kernel: int
    initrd: int
    disks: tuple[int, ...]
    """qcow2 files, each over the one before it. The last is what this machine alone writes; the others are read only.
    """
    guest: int
    """A listening stream socket: who connects to it talks to the agent."""
    monitor: int
    """A connected stream socket that speaks QMP."""
    memory: MemoryFile | None = None
    """None: the memory is QEMU's own."""

    def all(self) -> tuple[int, ...]:
        """Every descriptor QEMU must inherit."""
        memory = () if self.memory is None else (self.memory.descriptor,)
        return (self.kernel, self.initrd, *self.disks, self.guest, self.monitor, *memory)


def qemu_arguments(spec: MachineSpec, descriptors: Descriptors) -> list[str]:
    """The emulator's command line. Its standard output is the guest's serial console."""
    return [
        spec.emulator,
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-sandbox", _SANDBOX),
        *_machine(spec, descriptors.memory),
        *("-accel", _accelerator(spec.accelerator), "-cpu", spec.cpu),
        *("-smp", str(spec.vcpus), "-m", str(spec.memory_mib)),
        *("-kernel", f"/proc/self/fd/{descriptors.kernel}", "-initrd", f"/proc/self/fd/{descriptors.initrd}"),
        *("-append", kernel_command_line(spec)),
        *_disk(descriptors.disks),
        *_guest_port(descriptors),
        *("-chardev", f"socket,id=monitor,fd={descriptors.monitor}", "-mon", "chardev=monitor,mode=control"),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *_network_card(spec),
    ]


def kernel_command_line(spec: MachineSpec) -> str:
    """What the guest's kernel is told: to end the machine when it panics, and for `init.sh` how the network looks."""
    words = [f"console={spec.console}", "quiet", "panic=-1", "reboot=t"]
    if spec.architecture == "x86_64":
        # On a busy host an emulated timer comes too late for the kernel's check of it, which panics then.
        words.append("no_timer_check")
    if spec.network_card:
        # Fixed by QEMU's user networking.
        words += ["leveret_address=10.0.2.15/24", "leveret_gateway=10.0.2.2", "leveret_nameserver=10.0.2.3"]
    return " ".join(words)


def _accelerator(accelerator: Accelerator) -> str:
    # By default TCG keeps up to 1 GiB of translated code, which would be more than a small guest's own memory.
    return f"{accelerator},tb-size={TRANSLATED_MIB}" if accelerator is Accelerator.TCG else str(accelerator)


def _machine(spec: MachineSpec, memory: MemoryFile | None) -> list[str]:
    if memory is None:
        return ["-machine", spec.machine]
    backend = {
        "qom-type": "memory-backend-file",
        "id": "memory",
        "size": spec.memory_mib * 1024 * 1024,
        "mem-path": f"/proc/self/fd/{memory.descriptor}",
        "share": not memory.recorded,
    }
    incoming = ["-incoming", "defer"] if memory.recorded else []
    return ["-object", json.dumps(backend), "-machine", f"{spec.machine},memory-backend=memory", *incoming]


def _disk(descriptors: tuple[int, ...]) -> list[str]:
    # Nothing on this disk outlives the machine, so flushes are left out.
    unsafe = {"direct": False, "no-flush": True}
    words: list[str] = []
    below: str | None = None
    for number, descriptor in enumerate(descriptors, start=1):
        written = number == len(descriptors)
        name = "disk" if written else f"layer{number}"
        access = {"discard": "unmap"} if written else {"read-only": True}
        file = {"driver": "file", "filename": f"/dev/fdset/{number}", "cache": unsafe, "read-only": not written}
        node = {"driver": "qcow2", "node-name": name, "backing": below, "cache": unsafe, "file": file, **access}
        words += ["-add-fd", f"fd={descriptor},set={number}", "-blockdev", json.dumps(node)]
        below = name
    # By default a machine whose disk is full stops and waits; its guest is to be told instead.
    return [*words, "-device", f"virtio-blk-pci,drive={below},werror=report,rerror=report"]


def _guest_port(descriptors: Descriptors) -> list[str]:
    return [
        *("-device", "virtio-serial-pci,id=serial"),
        *("-chardev", f"socket,id=agent,fd={descriptors.guest},server=on,wait=off"),
        *("-device", f"virtserialport,bus=serial.0,chardev=agent,id={PORT_ID},name={GUEST_PORT}"),
    ]


def _network_card(spec: MachineSpec) -> list[str]:
    if not spec.network_card:
        return ["-nic", "none"]
    return ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="]
