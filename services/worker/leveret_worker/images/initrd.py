"""The initrd every guest boots with: the worker's own, so that an agent upgrade needs no new image.

It holds busybox and kernel modules of the image, and the agent. Its `/init` (`init.sh` beside this file)
mounts the root disk, prepares what a system's init would, and hands over to the image's `init`, the agent.
"""

import hashlib
import os
import shlex
import tempfile
from importlib.resources import files
from pathlib import Path

from leveret_worker.images import cpio
from leveret_worker.images.store import StoredImage


def build_initrd(image: StoredImage, agent: bytes) -> Path:
    """The initrd for a guest of `image` with `agent` in it; made once for each content and kept in the store.

    Args:
        image: a stored image.
        agent: the source of the agent, laid at `/run/leveret/agent.py` in the guest.

    Returns:
        An uncompressed cpio archive, readable by everyone; its name is the digest of its content.
    """
    content = initrd_archive(
        image.busybox.read_bytes(),
        {path.name: path.read_bytes() for path in image.modules},
        image.description.guest.init,
        agent,
    )
    target = image.store.root / "initrds" / f"{hashlib.sha256(content).hexdigest()}.cpio"
    try:
        os.utime(target)  # `garbage.py` goes by when it was last asked for
    except FileNotFoundError:
        _write_whole(target, content)
    except PermissionError:
        pass  # another user's: it ages, and is made again
    return target


def initrd_archive(busybox: bytes, modules: dict[str, bytes], init: list[str], agent: bytes) -> bytes:
    """The archive itself: equal arguments give equal bytes. `modules` are inserted in the order of their names."""
    script = files("leveret_worker.images").joinpath("init.sh").read_bytes()
    entries = [cpio.directory(name) for name in ("bin", "dev", "modules", "proc", "root", "run", "sys")]
    entries += [
        cpio.character_device("dev/console", 5, 1),
        cpio.file("bin/busybox", busybox, 0o755),
        cpio.file("init", script, 0o755),
        cpio.file("command", f"set -- {shlex.join(init)}\n".encode()),
        cpio.file("agent.py", agent),
        *(cpio.file(f"modules/{name}", content) for name, content in sorted(modules.items())),
    ]
    return cpio.archive(entries)


def _write_whole(target: Path, content: bytes) -> None:
    """Write so that the file is there whole or not at all, whoever else writes the same."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
