"""The memory of a recorded machine: a sealed file in memory that many machines map at once.

A machine restored from a template maps this file privately. QEMU 7.2 opens such a file only for writing too, and what
is written to a file shows in the private maps of others; so it must be one that nobody can write: a memfd under
F_SEAL_WRITE (memfd_create(2), fcntl(2)), which also proves that what was verified is what is used.
"""

import fcntl
import hashlib
import os
from typing import BinaryIO

from leveret_worker.qemu.errors import MachineError

Extent = tuple[int, int]
"""Offset and length of a part that holds data; all else is zeros."""

_BLOCK = 1024 * 1024
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def new_memory(size: int) -> int:
    """A descriptor of an empty memory of `size` bytes, which QEMU, whoever it runs as, can open through /proc."""
    descriptor = os.memfd_create("guest-memory", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        os.fchmod(descriptor, 0o666)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def extents(memory: int) -> list[Extent]:
    """The parts of it that were ever written, in order."""
    size = os.fstat(memory).st_size
    found: list[Extent] = []
    at = 0
    while at < size:
        try:
            start = os.lseek(memory, at, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole up to the end
            break
        at = os.lseek(memory, start, os.SEEK_HOLE)
        found.append((start, at - start))
    return found


def pack(memory: int, parts: list[Extent], target: BinaryIO) -> str:
    """Write `parts` of it one after the other to `target`; gives the SHA-256 of what was written, in hex."""
    digest = hashlib.sha256()
    for start, length in parts:
        for offset in range(start, start + length, _BLOCK):
            block = os.pread(memory, min(_BLOCK, start + length - offset), offset)
            digest.update(block)
            target.write(block)
    return digest.hexdigest()


def unpack(source: BinaryIO, parts: list[Extent], size: int, sha256: str) -> int:
    """A sealed memory of `size` bytes that holds what was packed.

    Raises:
        MachineError: `source` is not what `parts` and `sha256` say.
    """
    memory = new_memory(size)
    try:
        digest = hashlib.sha256()
        for start, length in parts:
            for offset in range(start, start + length, _BLOCK):
                wanted = min(_BLOCK, start + length - offset)
                block = source.read(wanted)
                if len(block) != wanted or not 0 <= offset <= size - wanted:
                    raise MachineError("the recorded memory does not have the recorded size")
                digest.update(block)
                os.pwrite(memory, block, offset)
        if digest.hexdigest() != sha256 or source.read(1):
            raise MachineError("the recorded memory was changed")
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(memory)
        raise
    return memory
