"""Taking the kernel and what an initrd needs, busybox and modules, out of an unpacked root file system."""

import lzma
import re
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


def take_file(root: Path, key: str, pattern: str, target: Path) -> None:
    """Copy the one file of `root` that matches the glob `pattern` to `target`.

    Raises:
        ImageError: none or several match; it names `key`, the pattern's in `image.yml`.
    """
    found = [path for path in sorted(root.glob(pattern)) if stat.S_ISREG(path.lstat().st_mode)]
    if len(found) != 1:
        names = ", ".join(str(path.relative_to(root)) for path in found) or "nothing"
        raise ImageError(f"{key}: {pattern} must match one file of the root file system, but matches {names}")
    target.write_bytes(found[0].read_bytes())


def require_static(program: Path) -> None:
    """Make sure that an ELF file asks for no dynamic loader: an initrd has none.

    Raises:
        ImageError: it does.
    """
    if re.search(rb"/lib(64|x32)?/ld-[a-z0-9._-]+", program.read_bytes()[:4096]) is not None:
        raise ImageError(f"{program.name} must be linked statically (Debian's package is busybox-static)")


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
    try:
        order = load_order(versions[0].read_text(), (directory / "modules.builtin").read_text(), wanted)
        contents = [_uncompressed(directory / file) for file in order]
    except OSError as error:
        raise ImageError(f"the root file system lacks a part of its kernel's modules: {error}") from error
    for number, (file, content) in enumerate(zip(order, contents, strict=True)):
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
