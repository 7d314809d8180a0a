"""Taking the kernel and the modules an initrd needs out of an unpacked root file system."""

import lzma
import stat
from pathlib import Path

from leveret_worker.images.errors import ImageError

MAX_MODULE = 64 * 1024 * 1024


def load_order(dependencies: str, builtin: str, wanted: list[str]) -> list[str]:
    """The module files to insert, in that order.

    Args:
        dependencies: the text of `modules.dep` (depmod(8)): `FILE: FILE…`, dependencies in reverse order of loading.
        builtin: the text of `modules.builtin`: files of modules that are part of the kernel.
        wanted: names of modules, with `-` and `_` meaning the same.

    Returns:
        Paths relative to the modules' directory; modules built into the kernel are left out.

    Raises:
        ImageError: the kernel has no module of that name.
    """
    needs: dict[str, list[str]] = {}
    files: dict[str, str] = {}
    for line in dependencies.splitlines():
        file, _, rest = line.partition(":")
        needs[file] = rest.split()
        files[_module_name(file)] = file
    built_in = {_module_name(line) for line in builtin.split()}
    order: list[str] = []
    for name in wanted:
        name = name.replace("-", "_")
        if name in files:
            order += [each for each in (*reversed(needs[files[name]]), files[name]) if each not in order]
        elif name not in built_in:
            raise ImageError(f"the kernel has no module {name}: take it from `modules` or choose another kernel")
    return order


def _module_name(file: str) -> str:
    return file.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def take_kernel(root: Path, pattern: str, target: Path) -> None:
    """Copy the one file of `root` that matches the glob `pattern` to `target`.

    Raises:
        ImageError: none or several match.
    """
    found = [path for path in sorted(root.glob(pattern)) if stat.S_ISREG(path.lstat().st_mode)]
    if len(found) != 1:
        names = ", ".join(str(path.relative_to(root)) for path in found) or "nothing"
        raise ImageError(f"kernel: {pattern} must match one file of the root file system, but matches {names}")
    target.write_bytes(found[0].read_bytes())


def take_modules(root: Path, wanted: list[str], target: Path) -> None:
    """Copy the `wanted` modules and what they depend on to `target`, uncompressed, named so that sorting gives the
    order of insertion (`00-virtio.ko`).

    Raises:
        ImageError: no single kernel version, a missing module, or a compression the standard library can't undo.
    """
    target.mkdir()
    versions = sorted((root / "lib/modules").glob("*/modules.dep"))
    if len(versions) != 1:
        raise ImageError(
            f"the root file system must hold the modules of one kernel, with modules.dep; it has {len(versions)}"
        )
    directory = versions[0].parent
    order = load_order(versions[0].read_text(), (directory / "modules.builtin").read_text(), wanted)
    for number, file in enumerate(order):
        content = _uncompressed(directory / file)
        (target / f"{number:02d}-{_module_name(file)}.ko").write_bytes(content)


def _uncompressed(path: Path) -> bytes:
    content = path.read_bytes()
    if path.name.endswith(".ko"):
        return content
    if not path.name.endswith(".ko.xz"):
        raise ImageError(f"the kernel module {path.name} is neither plain nor compressed with xz")
    decompressor = lzma.LZMADecompressor()
    module = decompressor.decompress(content, MAX_MODULE)
    if not decompressor.eof:
        raise ImageError(f"the kernel module {path.name} is larger than {MAX_MODULE} bytes")
    return module
