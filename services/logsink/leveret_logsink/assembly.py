"""How a stream comes together from chunks that arrive in any order, twice, or wrong. Pure.

The first bytes stored at an offset stay. So a chunk that comes again is harmless, and what has been proven whole can't
be changed by whatever comes later.
"""

from dataclasses import dataclass, field, replace

from leveret_logsink.ranges import Range, Ranges

#: Pieces a stream may be in. A worker sends in order, so an honest stream has a few; each costs memory.
MAX_PIECES = 1024


class Lie(ValueError):
    """A chunk that can't belong to its stream. The text says why."""


@dataclass(frozen=True, slots=True)
class End:
    """What a stream's last chunk says of the whole: its length in bytes and its SHA-256 in hexadecimal."""

    total: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Held:
    """What is stored of a stream, and its end once that is known."""

    stored: Ranges = field(default_factory=Ranges)
    end: End | None = None

    @property
    def complete(self) -> bool:
        """Whether every byte up to the known end is stored (what they are is still to be proven)."""
        return self.end is not None and self.stored.contiguous == self.end.total


def accept(held: Held, offset: int, length: int, end: End | None, limit: int) -> tuple[Held, list[Range]]:
    """Take a chunk of `length` bytes at `offset` into a stream of at most `limit` bytes.

    Returns:
        The stream with the chunk, and the ranges (of the stream) that have to be written: those not stored yet.

    Raises:
        Lie: the chunk goes beyond the limit or the end, says another end than was said before, or tears the stream
            into more than MAX_PIECES pieces.
    """
    reach = offset + length
    if reach > limit:
        raise Lie(f"bytes up to {reach}; the limit is {limit}")
    known = _agreed(held.end, end)
    if known is not None and known.total > limit:
        raise Lie(f"a length of {known.total} bytes; the limit is {limit}")
    if known is not None and max(reach, held.stored.end) > known.total:
        raise Lie(f"bytes up to {max(reach, held.stored.end)} in a stream of {known.total}")
    stored = held.stored.add(offset, reach)
    if len(stored.parts) > MAX_PIECES:
        raise Lie(f"more than {MAX_PIECES} separate pieces")
    return replace(held, stored=stored, end=known), list(held.stored.missing(offset, reach))


def _agreed(known: End | None, told: End | None) -> End | None:
    if known is not None and told is not None and known != told:
        raise Lie(f"an end at {told.total} bytes with another digest than the one at {known.total} said before")
    return known or told
