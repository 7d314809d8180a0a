"""Building an image with the real tools from a tiny recipe, and what is left when it goes wrong."""

import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from leveret_worker.images import ImageError, ImageStore, StoredImage
from leveret_worker.images import host as host_commands
from leveret_worker.images.build import build_image
from leveret_worker.images.recipes import Recipe

Recipes = Callable[..., Recipe]


class Titles:
    """Collects the steps' titles."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @contextmanager
    def __call__(self, title: str) -> Iterator[None]:
        self.seen.append(title)
        yield


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


def start_builder(store: ImageStore, tmp_path: Path) -> subprocess.Popen[bytes]:
    """`leveret-image build test/tiny` as a process."""
    command = [sys.executable, "-m", "leveret_worker.images", "build", "test/tiny", "--arch", "x86_64"]
    options = ["--store", str(store.root), "--recipes", str(tmp_path / "recipes")]
    return subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def build(recipe: Recipe, store: ImageStore, *, force: bool = False, mirror: str | None = None) -> StoredImage:
    return build_image(recipe, "x86_64", store, Titles(), force=force, mirror=mirror)


def left_behind(store: ImageStore) -> list[Path]:
    return list((store.root / "work").glob("*"))


def test_an_image_is_made_found_and_verified(tiny_recipe: Recipes, store: ImageStore) -> None:
    recipe, steps = tiny_recipe(), Titles()
    image = build_image(recipe, "x86_64", store, steps)
    assert steps.seen == ["root file system", "kernel and modules", "disk", "store"]
    assert image.kernel.read_text() == "kernel\n"
    assert [path.name for path in image.modules] == ["00-m.ko"]
    assert image.busybox.read_text() == "busybox\n"
    assert image.manifest.recipe_digest == recipe.digest
    assert store.find("test/tiny", "x86_64") == image == store.find("test/alias", "x86_64")
    store.verify(image)
    assert left_behind(store) == []


def test_the_disk_holds_the_tree_as_ext4(tiny_recipe: Recipes, store: ImageStore, tmp_path: Path) -> None:
    image = build(tiny_recipe('chown 1000:1000 "$tree/etc/mirror"'), store, mirror="http://mirror.test/x")
    raw = tmp_path / "raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", image.disk, raw], check=True, timeout=60)
    assert raw.stat().st_size == 1024**3
    debugfs = ["debugfs", "-R", "cat /etc/mirror", str(raw)]
    path = {"PATH": host_commands.SEARCH_PATH}
    assert subprocess.run(debugfs, capture_output=True, check=True, env=path).stdout == b"http://mirror.test/x\n"
    debugfs[2] = "stat /etc/mirror"
    assert b"User:  1000   Group:  1000" in subprocess.run(debugfs, capture_output=True, check=True, env=path).stdout
    debugfs[2] = "ls /boot"
    assert b"vmlinuz" not in subprocess.run(debugfs, capture_output=True, check=True, env=path).stdout


def test_files_are_readable_by_qemus_user_whatever_the_umask(tiny_recipe: Recipes, store: ImageStore) -> None:
    before = os.umask(0o077)
    try:
        image = build(tiny_recipe(), store)
    finally:
        os.umask(before)
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in (image.disk, image.kernel, *image.modules))
    assert image.directory.stat().st_mode & 0o777 == 0o755


def test_the_same_recipe_is_not_built_twice_a_changed_one_is(tiny_recipe: Recipes, store: ImageStore) -> None:
    first = build(tiny_recipe(), store)
    steps = Titles()
    assert build_image(tiny_recipe(), "x86_64", store, steps).digest == first.digest
    assert steps.seen == []
    second = build(tiny_recipe(': >"$tree/etc/changed"'), store)
    assert second.digest != first.digest
    assert store.find("test/tiny", "x86_64") == second
    store.verify(first)  # a build that runs on the old one keeps it


def test_force_builds_again(tiny_recipe: Recipes, store: ImageStore) -> None:
    build(tiny_recipe(), store)
    steps = Titles()
    build_image(tiny_recipe(), "x86_64", store, steps, force=True)
    assert len(steps.seen) == 4


def test_a_failing_recipe_leaves_nothing_and_its_words_are_shown(tiny_recipe: Recipes, store: ImageStore) -> None:
    good = build(tiny_recipe(), store)
    with pytest.raises(ImageError, match=r"(?s)status 7.*the mirror is on fire"):
        build(tiny_recipe('echo "the mirror is on fire" >&2; exit 7'), store)
    assert left_behind(store) == []
    assert store.find("test/tiny", "x86_64") == good
    assert [path.name for path in (store.root / "objects").iterdir()] == [good.digest]


def test_a_missing_kernel_fails_the_build(tiny_recipe: Recipes, store: ImageStore) -> None:
    with pytest.raises(ImageError, match="boot/vmlinuz"):
        build(tiny_recipe('rm "$tree/boot/vmlinuz-1"'), store)
    assert left_behind(store) == []


def test_missing_tools_are_all_named_at_once(tiny_recipe: Recipes, store: ImageStore) -> None:
    recipe = tiny_recipe(needs="{no-such-tool: its-package, nor-this-one: other-package}")
    with pytest.raises(ImageError, match="install its-package other-package"):
        build(recipe, store)


def test_what_emulation_needs_is_asked_for_on_other_hosts_alone(tiny_recipe: Recipes, store: ImageStore) -> None:
    other = "aarch64" if platform.machine() == "x86_64" else "x86_64"
    recipe = tiny_recipe(foreign_needs="{no-such-emulator: qemu-user-static}")
    assert recipe.needs(platform.machine()) == {}
    assert recipe.needs(other) == {"no-such-emulator": "qemu-user-static"}
    with pytest.raises(ImageError, match="install qemu-user-static"):
        build_image(recipe, other, store, Titles())


def test_a_busybox_that_is_missing_or_needs_a_loader_fails_the_build(tiny_recipe: Recipes, store: ImageStore) -> None:
    with pytest.raises(ImageError, match="busybox: boot/busybox must match one file"):
        build(tiny_recipe('rm "$tree/boot/busybox"'), store)
    with pytest.raises(ImageError, match="busybox must be linked statically"):
        build(tiny_recipe('cp /bin/sh "$tree/boot/busybox"'), store)


def test_an_architecture_without_recipe_is_refused(tiny_recipe: Recipes, store: ImageStore) -> None:
    with pytest.raises(ImageError, match="no recipe for riscv64, only for x86_64, aarch64"):
        build_image(tiny_recipe(), "riscv64", store, Titles())


def test_two_builds_at_once_make_one_image(tiny_recipe: Recipes, store: ImageStore) -> None:
    recipe, results = tiny_recipe(), list[StoredImage]()
    steps = [Titles(), Titles()]
    threads = [
        threading.Thread(target=lambda each: results.append(build_image(recipe, "x86_64", store, each)), args=(each,))
        for each in steps
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 2
    assert results[0].digest == results[1].digest
    assert sorted(len(each.seen) for each in steps) == [0, 4]


def test_what_a_killed_build_left_is_cleared_by_the_next(
    tiny_recipe: Recipes, store: ImageStore, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "reached")
    recipe = tiny_recipe(f'echo reached >"{tmp_path}/reached"; exec sleep 60')
    builder = start_builder(store, tmp_path)
    assert (tmp_path / "reached").read_text() == "reached\n"
    builder.kill()
    builder.wait(10)
    assert len(left_behind(store)) == 1
    build(tiny_recipe(), store)
    assert left_behind(store) == []
    assert recipe.name == "test/tiny"


def test_an_interrupted_build_ends_its_commands_and_cleans_up(
    tiny_recipe: Recipes, store: ImageStore, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pid")
    tiny_recipe(f'echo $$ >"{tmp_path}/pid"; sleep 60 & wait')
    builder = start_builder(store, tmp_path)
    recipe_pid = int((tmp_path / "pid").read_text())
    handle = os.pidfd_open(recipe_pid)
    builder.send_signal(signal.SIGINT)
    assert builder.wait(30) != 0
    os.close(handle)
    assert not Path(f"/proc/{recipe_pid}").exists()
    assert left_behind(store) == []


def test_a_step_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"sleep did not end within 0 s"):
        host_commands.run(["sleep", "60"], log=tmp_path / "log", limit=0.2)


def test_damage_is_found(tiny_recipe: Recipes, store: ImageStore) -> None:
    image = build(tiny_recipe(), store)
    image.kernel.write_text("other")
    with pytest.raises(ImageError, match="kernel was changed"):
        store.verify(image)
    image.kernel.unlink()
    with pytest.raises(ImageError, match="kernel is missing"):
        store.verify(image)
    (image.directory / "manifest.json").write_text((image.directory / "manifest.json").read_text() + " ")
    with pytest.raises(ImageError, match="was changed"):
        store.find("test/tiny", "x86_64")
    assert store.images() == []


def test_a_pointer_that_can_not_be_read_costs_no_other_image(tiny_recipe: Recipes, store: ImageStore) -> None:
    image = build(tiny_recipe(), store)
    broken = store.root / "names" / "test" / "broken" / "x86_64"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"\xff\n")
    assert store.images() == [image]
    with pytest.raises(ImageError, match="can't be read"):
        store.find("test/broken", "x86_64")
