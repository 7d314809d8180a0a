"""Compressed files are read from anywhere, by other programs too, and never believed when they are damaged."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_logsink import seekable
from leveret_logsink.seekable import FRAME, Damaged, Seekable

#: Three frames, the last one short.
BODY = b"".join(b"line %d of a log\n" % number for number in range(36_000))
FILE = b"".join(seekable.compress(BODY[at : at + FRAME] for at in range(0, len(BODY), FRAME)))


def of(file: bytes) -> tuple[Callable[[int, int], bytes], int]:
    return lambda length, offset: file[offset : offset + length], len(file)


@given(st.lists(st.binary(max_size=300), max_size=20), st.integers(0, 4_000), st.integers(0, 4_000))
def test_any_slice_is_that_of_the_content(blocks: list[bytes], offset: int, length: int) -> None:
    file = Seekable(*of(b"".join(seekable.compress(blocks))))
    whole = b"".join(blocks)
    assert file.size == len(whole)
    assert file.read(offset, length) == whole[offset : offset + length]


@pytest.mark.parametrize("offset", [0, 1, FRAME - 1, FRAME, FRAME + 1, 2 * FRAME - 1, len(BODY) - 1, len(BODY)])
def test_a_slice_unpacks_only_its_own_frames(offset: int) -> None:
    asked: list[int] = []

    def pread(length: int, at: int) -> bytes:
        asked.append(length)
        return FILE[at : at + length]

    file = Seekable(pread, len(FILE))
    asked.clear()
    assert file.read(offset, 2) == BODY[offset : offset + 2]
    frames = 0 if offset == len(BODY) else 1 + (offset % FRAME == FRAME - 1)
    assert len(asked) == frames


def test_zstd_itself_reads_it(tmp_path: Path) -> None:
    (tmp_path / "log.zst").write_bytes(FILE)
    ran = subprocess.run(["zstd", "-dc", tmp_path / "log.zst"], capture_output=True, timeout=30, check=True)
    assert ran.stdout == BODY
    assert len(FILE) < len(BODY) / 4


def test_the_table_is_that_of_the_published_format() -> None:
    """Byte for byte as the specification of the format lays it out, for two frames."""
    assert seekable.table([(0x11, 0x22), (0x33, 0x44)]) == bytes.fromhex(
        "5e2a4d18 19000000"  # a skippable frame with 25 bytes
        "11000000 22000000 33000000 44000000"  # sizes of each frame, compressed and not
        "02000000 00 b1ea928f"  # two frames, no checksums, the magic number
    )


@given(st.integers(0, len(FILE) - 1), st.integers(1, 255))
def test_a_changed_byte_is_found_out_or_harmless(at: int, change: int) -> None:
    changed = bytearray(FILE)
    changed[at] ^= change
    try:
        file = Seekable(*of(bytes(changed)))
        found = file.read(0, len(BODY) + 1)
    except Damaged:
        return
    assert found == BODY  # the descriptor's unused bits


@given(st.integers(0, len(FILE) - 1))
def test_a_file_cut_short_is_found_out(length: int) -> None:
    with pytest.raises(Damaged):
        Seekable(*of(FILE[:length]))


@given(st.binary(max_size=200))
def test_other_bytes_are_no_such_file(file: bytes) -> None:
    with pytest.raises(Damaged):
        Seekable(*of(file + b"!"))
