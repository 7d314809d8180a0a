"""What a recorded machine depends on. Where anything of it differs, its template does not fit, and another is made."""

import hashlib
import os
import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from leveret_worker.qemu.arguments import Accelerator, Descriptors, MachineSpec, MemoryFile, qemu_arguments
from leveret_worker.qemu.confinement import leashed
from leveret_worker.qemu.errors import MachineError
from leveret_worker.qemu.launch import BootFiles
from leveret_worker.qemu.processes import finish

FORMAT = 1
"""Of a template's files and of how it is recorded."""
VERSION_LIMIT = 10.0
_ANY = Descriptors(kernel=0, initrd=0, disks=(0, 0), guest=0, monitor=0, memory=MemoryFile(0, recorded=True))


class Origin(BaseModel):
    """Where a template comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int
    image: str
    """The image's digest."""
    initrd: str
    """The digest of the initrd, which holds the agent."""
    emulator: str
    """The emulator's version, as it says itself, and its file."""
    host: str
    """The kernel and the processor, where the guest's instructions run on them; else nothing."""
    arguments: tuple[str, ...]
    """The emulator's command line, descriptors left out: architecture, machine, memory, processors, network card and
    all else that must be the same for a machine to go on where another was recorded."""

    @property
    def key(self) -> str:
        """The name of its template: the digest of all of it, in hex."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


async def origin_of(spec: MachineSpec, boot: BootFiles, image: str) -> Origin:
    """The origin of templates for machines like this. `image`: the image's digest; the initrd is named by its own.

    Raises:
        MachineError: the emulator does not say its version.
    """
    return Origin(
        format=FORMAT,
        image=image,
        initrd=boot.initrd.stem,
        emulator=await _emulator(spec.emulator),
        host=_host() if spec.accelerator is Accelerator.KVM else "",
        arguments=tuple(qemu_arguments(spec, _ANY)),
    )


_versions: dict[tuple[str, int, int], str] = {}


async def _emulator(name: str) -> str:
    """Say which emulator would start now: an upgrade may come while the worker runs."""
    path = shutil.which(name)
    if path is None:
        raise MachineError(f"{name} is not installed")
    status = os.stat(path)
    known = (path, status.st_ino, status.st_mtime_ns)
    if known not in _versions:
        try:
            finished = await finish(leashed([path, "--version"]), limit=VERSION_LIMIT)
        except (OSError, TimeoutError) as error:
            raise MachineError(f"{name} does not say its version: {error}") from error
        if finished.status != 0:
            raise MachineError(f"{name} does not say its version: {finished.errors}")
        _versions[known] = finished.output.partition("\n")[0]
    return f"{_versions[known]} {status.st_size} {status.st_mtime_ns}"


def _host() -> str:
    facts = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    wanted = ("model name", "microcode", "flags", "CPU implementer", "CPU part", "Features")
    processor = "\n".join(line for line in facts if line.startswith(wanted))
    return f"{os.uname().release} {hashlib.sha256(processor.encode()).hexdigest()}"
