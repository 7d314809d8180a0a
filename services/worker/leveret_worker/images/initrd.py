"""The initrd every guest boots with: the worker's own, so that an agent upgrade needs no new image.

It holds a static busybox, the kernel modules of the image, and the agent. Its `/init` (`init.sh` beside this file)
mounts the root disk, prepares what a system's init would, and hands over to the image's `init`, the agent.
"""

import hashlib
import os
import re
import shlex
import tempfile
from importlib.resources import files
from pathlib import Path

from leveret_worker.images import cpio
from leveret_worker.images.errors import ImageError
from leveret_worker.images.store import StoredImage

_BUSYBOX = ("/bin/busybox", "/usr/bin/busybox", "/bin/busybox.static")


def build_initrd(image: StoredImage, agent: bytes, busybox: Path | None = None) -> Path:
    """The initrd for a guest of `image` with `agent` in it; made once for each content and kept in the store.

    Args:
        image: a stored image.
        agent: the source of the agent, laid at `/run/leveret/agent.py` in the guest.
        busybox: a statically linked busybox of the guest's architecture; without it the host's own.

    Returns:
        An uncompressed cpio archive, readable by everyone; its name is the digest of its content.

    Raises:
        ImageError: there is no static busybox.
    """
    content = initrd_archive(
        (busybox or _find_busybox()).read_bytes(),
        {path.name: path.read_bytes() for path in image.modules},
        image.description.guest.init,
        agent,
    )
    target = image.store.root / "initrds" / f"{hashlib.sha256(content).hexdigest()}.cpio"
    if not target.exists():
        _write_whole(target, content)
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


def _find_busybox() -> Path:
    for name in _BUSYBOX:
        path = Path(name)
        if path.is_file() and _is_static(path):
            return path
    raise ImageError("there is no statically linked busybox on this host: install the package busybox-static")


def _is_static(path: Path) -> bool:
    """Whether an ELF file asks for no dynamic loader: busybox in an initrd has none."""
    return re.search(rb"/lib(64|x32)?/ld-[a-z0-9._-]+", path.read_bytes()[:4096]) is None


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
