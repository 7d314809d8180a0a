"""The newest records of the replay stream, in memory: most readers ask only for what came a moment ago."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Record:
    """A record of the stream: a published message and its place.

    Attributes:
        key: the routing key it was published under.
    """

    offset: int
    key: str
    type: str | None
    message_id: str | None
    body: bytes

    @property
    def size(self) -> int:
        """Bytes, about."""
        return len(self.body) + _OVERHEAD


#: Bytes of a record besides its body: key, type, identifiers, and what Python needs to hold them.
_OVERHEAD = 600


class Ring:
    """As many of the newest records, without a gap between them, as `most_records` and `most_bytes` allow."""

    def __init__(self, most_records: int, most_bytes: int) -> None:
        self._most_records = most_records
        self._most_bytes = most_bytes
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._records: list[Record] = []
        self._offsets: list[int] = []
        #: Those before it were dropped; they leave the lists many at a time.
        self._first = 0
        self._bytes = 0
        #: Every record past this place is here. None: nothing is known of the stream yet.
        self.floor: int | None = None
        #: The place of the last record, here or dropped.
        self.newest: int | None = None

    def add(self, record: Record) -> None:
        """Add the stream's next record. One that is known changes nothing."""
        if self.newest is not None and record.offset <= self.newest:
            return
        if self.floor is None:
            self.floor = record.offset - 1
        self._records.append(record)
        self._offsets.append(record.offset)
        self._bytes += record.size
        self.newest = record.offset
        while self._bytes > self._most_bytes or len(self._records) - self._first > self._most_records:
            self._drop()

    def covers(self, after: int) -> bool:
        """Whether every record past the place `after` is here."""
        return self.floor is not None and after >= self.floor

    def after(self, place: int) -> Iterator[Record]:
        """Give the records past `place`, oldest first. The ring must not change meanwhile."""
        for at in range(max(self._first, bisect_right(self._offsets, place)), len(self._records)):
            yield self._records[at]

    def _drop(self) -> None:
        dropped = self._records[self._first]
        self._bytes -= dropped.size
        self.floor = dropped.offset
        self._first += 1
        if self._first * 2 > len(self._records):
            del self._records[: self._first]
            del self._offsets[: self._first]
            self._first = 0
