"""The order in which kernel modules are inserted."""

import lzma
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_worker.images import ImageError
from leveret_worker.images.kernel import load_order, require_static, take_file, take_modules

# As depmod writes it for Debian 12's kernel: dependencies come in reverse order of loading.
BOOKWORM = """\
kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_pci_legacy_dev.ko kernel/drivers/virtio/virtio.ko \
kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio_pci_legacy_dev.ko:
kernel/drivers/char/virtio_console.ko.xz: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
"""


def test_dependencies_come_first_and_once() -> None:
    order = load_order(BOOKWORM, "", ["virtio_pci", "virtio-console"])
    names = [file.rpartition("/")[2] for file in order]
    assert names == [
        *("virtio_ring.ko", "virtio.ko", "virtio_pci_legacy_dev.ko", "virtio_pci.ko"),
        "virtio_console.ko.xz",
    ]


def test_built_in_modules_are_left_out_and_unknown_ones_named() -> None:
    assert load_order("", "kernel/drivers/virtio/virtio-pci.ko\n", ["virtio_pci"]) == []
    with pytest.raises(ImageError, match="no module virtio_blk"):
        load_order(BOOKWORM, "", ["virtio_blk"])


@given(st.data())
def test_no_module_comes_before_what_it_needs(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    direct = {n: data.draw(st.sets(st.integers(0, n - 1))) if n else set[int]() for n in range(count)}

    def all_needed(number: int) -> set[int]:
        return direct[number].union(*(all_needed(each) for each in direct[number]))

    lines = [f"m{n}.ko: " + " ".join(f"m{each}.ko" for each in sorted(all_needed(n), reverse=True)) for n in direct]
    wanted = data.draw(st.lists(st.sampled_from([f"m{n}" for n in direct])))
    order = load_order("\n".join(lines), "", wanted)
    assert len(set(order)) == len(order)
    assert {f"{name}.ko" for name in wanted} <= set(order)
    for position, file in enumerate(order):
        assert {f"m{n}.ko" for n in all_needed(int(file[1:-3]))} <= set(order[:position])


def test_modules_are_unpacked_in_their_order(tmp_path: Path) -> None:
    modules = tmp_path / "root/lib/modules/6.1"
    (modules / "kernel").mkdir(parents=True)
    (modules / "modules.dep").write_text("kernel/b.ko.xz: kernel/a.ko\nkernel/a.ko:\n")
    (modules / "modules.builtin").write_text("")
    (modules / "kernel/a.ko").write_bytes(b"plain")
    (modules / "kernel/b.ko.xz").write_bytes(lzma.compress(b"packed"))
    take_modules(tmp_path / "root", ["b"], tmp_path / "out")
    found = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert found == {"00-a.ko": b"plain", "01-b.ko": b"packed"}


def test_one_kernel_must_match(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    with pytest.raises(ImageError, match=r"kernel: boot/vmlinuz-\* must .* matches nothing"):
        take_file(tmp_path, "kernel", "boot/vmlinuz-*", tmp_path / "kernel")
    (tmp_path / "boot/vmlinuz-1").write_bytes(b"1")
    (tmp_path / "boot/vmlinuz-old").symlink_to("vmlinuz-1")
    take_file(tmp_path, "kernel", "boot/vmlinuz-*", tmp_path / "kernel")
    assert (tmp_path / "kernel").read_bytes() == b"1"
    (tmp_path / "boot/vmlinuz-2").write_bytes(b"2")
    with pytest.raises(ImageError, match="boot/vmlinuz-1, boot/vmlinuz-2"):
        take_file(tmp_path, "kernel", "boot/vmlinuz-*", tmp_path / "kernel")


def test_a_busybox_that_needs_a_loader_is_refused(tmp_path: Path) -> None:
    require_static(Path("/bin/busybox"))
    with pytest.raises(ImageError, match="sh must be linked statically"):
        require_static(Path("/bin/sh"))
