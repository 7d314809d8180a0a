"""A tiny image that real tools make in a second: enough for the store and the builder, not for booting."""

from collections.abc import Callable
from pathlib import Path

import pytest

from leveret_worker.images.model import recipes_directory
from leveret_worker.images.recipes import Recipe, load_recipe

TINY = """\
echo "making a root for $SUITE from ${MIRROR:-anywhere}" >&2
umask 022
tree=$(mktemp -d)
chmod 755 "$tree" # as a root directory is: an image may be built by a user
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree/boot" "$tree/dev" "$tree/etc" "$tree/lib/modules/1/kernel"
echo kernel >"$tree/boot/vmlinuz-1"
echo busybox >"$tree/boot/busybox"
echo "kernel/m.ko:" >"$tree/lib/modules/1/modules.dep"
: >"$tree/lib/modules/1/modules.builtin"
echo module >"$tree/lib/modules/1/kernel/m.ko"
echo "${MIRROR:-anywhere}" >"$tree/etc/mirror"
EXTRA
tar -C "$tree" -c .
"""


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Callable[..., Recipe]:
    """Makes a recipe for the image `test/tiny`; `extra` is shell run before the tree is archived."""

    def make(extra: str = "", needs: str = "{}", foreign_needs: str = "{}", untried: str = "null") -> Recipe:
        directory = tmp_path / "recipes/test/tiny"
        directory.mkdir(parents=True, exist_ok=True)
        guest = load_recipe(recipes_directory(), "test/minimal").description.guest.model_dump_json()
        (directory / "image.yml").write_text(
            f"description: tiny\naliases: [test/alias]\nrecipe: recipe.sh\nneeds: {needs}\n"
            "variables: {SUITE: tiny}\ndisk_gib: 1\n"
            f"untried: {untried}\n"
            f"architectures:\n"
            f"  x86_64: {{machine: q35, console: ttyS0, foreign_needs: {foreign_needs}}}\n"
            f"  aarch64: {{machine: virt, console: ttyAMA0, foreign_needs: {foreign_needs}}}\n"
            f"kernel: boot/vmlinuz-*\nbusybox: boot/busybox\nmodules: [m]\nguest: {guest}\n"
        )
        (directory / "recipe.sh").write_text(TINY.replace("EXTRA", extra))
        return load_recipe(tmp_path / "recipes", "test/tiny")

    return make
