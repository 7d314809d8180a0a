"""Compressed files that can be read from their middle: zstd frames of FRAME bytes each, then a table of their sizes.

The Zstandard Seekable Format, version 0.1.0 (zstd's own repository, `contrib/seekable_format/
zstd_seekable_compression_format.md`), without its optional checksums, for every frame has zstd's own. The table is a
frame that decompressors skip: `zstd -d` reads such a file as any other. Pure.
"""

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate

import zstandard

#: Bytes of content in a frame: what a reader is sent at once (web.BLOCK), so that reading a file through unpacks no
#: frame twice. Frames of 1 MiB would save 2 % more of a plain log's size.
FRAME = 256 * 1024
LEVEL = 3

_HEADER = struct.Struct("<II")  # magic number of a skippable frame, bytes that follow
_ENTRY = struct.Struct("<II")  # a frame's bytes in the file, and of content
_FOOTER = struct.Struct("<IBI")  # number of frames, descriptor, magic number of the format
_SKIPPABLE = 0x184D2A5E
_SEEKABLE = 0x8F92EAB1
#: Of the descriptor: entries with checksums, reserved bits. The two lowest mean nothing.
_CHECKSUMS = 0x80
_RESERVED = 0x7C


class Damaged(ValueError):
    """Not a file of this format, or not as it was written. The text says what is wrong."""


def compress(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Give the file's bytes, piece by piece. `blocks`: its content, at most FRAME bytes each."""
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True, write_content_size=True)
    sizes: list[tuple[int, int]] = []
    for block in blocks:
        frame = compressor.compress(block)
        sizes.append((len(frame), len(block)))
        yield frame
    yield table(sizes)


def table(sizes: Sequence[tuple[int, int]]) -> bytes:
    """Give the table of frames with these sizes: in the file, of content."""
    entries = b"".join(_ENTRY.pack(*size) for size in sizes)
    return _HEADER.pack(_SKIPPABLE, len(entries) + _FOOTER.size) + entries + _FOOTER.pack(len(sizes), 0, _SEEKABLE)


class Seekable:
    """A compressed file, open for reading."""

    def __init__(self, pread: Callable[[int, int], bytes], size: int) -> None:
        """Read the table.

        Args:
            pread: gives (length, offset) of the file; fewer bytes at its end.
            size: the file's bytes.

        Raises:
            Damaged: there is no table, or it is not that of this file.
        """
        self._pread = pread
        sizes = _sizes(pread, size)
        #: Where each frame begins in the file, and its content in the whole; one past the last at the end.
        self._at = list(accumulate((size for size, _ in sizes), initial=0))
        self._starts = list(accumulate((size for _, size in sizes), initial=0))
        self.size = self._starts[-1]

    def read(self, offset: int, length: int) -> bytes:
        """Give at most `length` bytes of the content at `offset`; fewer at its end. Raises Damaged."""
        end = min(offset + length, self.size)
        parts: list[bytes] = []
        while offset < end:
            number = bisect_right(self._starts, offset) - 1
            start = self._starts[number]
            parts.append(self._content(number)[offset - start : end - start])
            offset = self._starts[number + 1]
        return b"".join(parts)

    def _content(self, number: int) -> bytes:
        at, size = self._at[number], self._starts[number + 1] - self._starts[number]
        frame = self._pread(self._at[number + 1] - at, at)
        try:
            # looked at first: a damaged header may ask for any amount of memory
            if zstandard.frame_content_size(frame) != size:
                raise Damaged(f"frame {number} does not hold the {size} bytes that the table says")
            return zstandard.ZstdDecompressor().decompress(frame)
        except zstandard.ZstdError as error:
            raise Damaged(f"frame {number}: {error}") from None


def _sizes(pread: Callable[[int, int], bytes], size: int) -> list[tuple[int, int]]:
    footer = pread(_FOOTER.size, max(0, size - _FOOTER.size))
    if len(footer) < _FOOTER.size:
        raise Damaged("too short for a table")
    count, descriptor, magic = _FOOTER.unpack(footer)
    if magic != _SEEKABLE or descriptor & (_CHECKSUMS | _RESERVED):
        raise Damaged("does not end with a table that is understood here")
    length = _HEADER.size + count * _ENTRY.size + _FOOTER.size
    if length > size:
        raise Damaged(f"a table of {count} frames in a file of {size} bytes")
    found = pread(length, size - length)
    if len(found) < length or _HEADER.unpack_from(found) != (_SKIPPABLE, length - _HEADER.size):
        raise Damaged("its table does not begin where it should")
    sizes = list(_ENTRY.iter_unpack(found[_HEADER.size : -_FOOTER.size]))
    if sum(packed for packed, _ in sizes) + length != size or any(content > FRAME for _, content in sizes):
        raise Damaged("its table is that of another file")
    return sizes
