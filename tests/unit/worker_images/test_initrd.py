"""The initrd: an archive the kernel's own format tools read, cached by its content."""

import os
import stat
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_worker.images import ImageStore, build_initrd, cpio, default_store
from leveret_worker.images.build import build_image
from leveret_worker.images.initrd import initrd_archive
from leveret_worker.images.recipes import Recipe


def no_steps(_: str) -> AbstractContextManager[None]:
    return nullcontext()


def unpack(archive: bytes, directory: Path) -> None:
    subprocess.run(
        ["busybox", "cpio", "-idm"], input=archive, cwd=directory, check=True, capture_output=True, timeout=20
    )


def test_busybox_unpacks_what_was_packed(tmp_path: Path) -> None:
    archive = initrd_archive(b"\x7fELF", {"01-b.ko": b"b", "00-a.ko": b"aa"}, ["/bin/x", "a b"], b"print()\n")
    unpack(archive, tmp_path)
    assert (tmp_path / "bin/busybox").read_bytes() == b"\x7fELF"
    assert os.access(tmp_path / "init", os.X_OK)
    assert (tmp_path / "agent.py").read_bytes() == b"print()\n"
    assert (tmp_path / "command").read_text() == "set -- /bin/x 'a b'\n"
    assert sorted(path.name for path in (tmp_path / "modules").iterdir()) == ["00-a.ko", "01-b.ko"]


@given(st.binary(max_size=50))
def test_content_of_any_length_is_padded_to_four_bytes(content: bytes) -> None:
    archive = cpio.archive([cpio.directory("d"), cpio.file("d/f", content), cpio.character_device("c", 5, 1)])
    assert len(archive) % 4 == 0
    assert archive.count(b"070701") >= 4
    assert archive.rstrip(b"\0").endswith(b"TRAILER!!!")
    assert stat.S_ISCHR(cpio.character_device("c", 5, 1).mode)


def test_init_is_valid_shell() -> None:
    script = Path(cpio.__file__).with_name("init.sh")
    subprocess.run(["busybox", "sh", "-n", str(script)], check=True, timeout=20)


def test_it_is_made_once_for_each_agent(tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")
    image = build_image(tiny_recipe(), "x86_64", store, no_steps)
    first = build_initrd(image, b"one")
    made = first.stat().st_ino
    os.utime(first, (0, 0))
    assert build_initrd(image, b"one") == first
    assert first.stat().st_ino == made
    assert first.stat().st_mtime > time.time() - 60  # it was asked for just now, so it is no garbage
    assert first.stat().st_mode & 0o777 == 0o644
    assert build_initrd(image, b"two") != first
    assert len(list(first.parent.iterdir())) == 2


def test_the_default_store_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/cache")
    assert default_store().root == Path("/some/cache/leveret/images")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", "/some/home")
    assert default_store().root == Path("/some/home/.cache/leveret/images")
