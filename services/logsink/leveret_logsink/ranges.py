"""Which bytes of a stream are stored: a set of half-open intervals. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple


class Range(NamedTuple):
    """Bytes `start` up to but not including `end`; never empty in a `Ranges`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Ranges:
    """Sorted ranges that neither overlap nor touch."""

    parts: tuple[Range, ...] = ()

    @classmethod
    def of_flat(cls, flat: Iterable[int]) -> "Ranges":
        """Read `[start, end, start, end, …]` as `flat` gives it.

        Raises:
            ValueError: those are not sorted, disjoint, non-empty ranges.
        """
        numbers = list(flat)
        if len(numbers) % 2 or any(after <= before for before, after in pairwise(numbers)):
            raise ValueError("not a list of sorted, disjoint ranges")
        return cls(tuple(Range(*numbers[at : at + 2]) for at in range(0, len(numbers), 2)))

    def flat(self) -> list[int]:
        """Give `[start, end, start, end, …]`, strictly growing: the form that the database keeps."""
        return [bound for part in self.parts for bound in part]

    @property
    def contiguous(self) -> int:
        """The number of bytes stored from the start without a hole."""
        return self.parts[0].end if self.parts and self.parts[0].start == 0 else 0

    @property
    def end(self) -> int:
        """One past the last stored byte."""
        return self.parts[-1].end if self.parts else 0

    def add(self, start: int, end: int) -> "Ranges":
        """Give the set with bytes `start` to `end` in it; an empty range adds nothing."""
        if start >= end:
            return self
        before = tuple(part for part in self.parts if part.end < start)
        after = tuple(part for part in self.parts if part.start > end)
        touched = self.parts[len(before) : len(self.parts) - len(after)]
        if touched:
            start, end = min(start, touched[0].start), max(end, touched[-1].end)
        return Ranges((*before, Range(start, end), *after))

    def missing(self, start: int, end: int) -> Iterator[Range]:
        """Give the parts of `start` to `end` that are not in the set, in order."""
        for part in self.parts:
            if part.end <= start:
                continue
            if part.start >= end:
                break
            if part.start > start:
                yield Range(start, part.start)
            start = part.end
        if start < end:
            yield Range(start, end)
