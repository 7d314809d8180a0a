"""A subscriber's place in the replay stream, and the file that keeps it across runs and crashes."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, Field, ValidationError

from leveret_client.errors import CursorUnusable
from leveret_proto.envelope import describe
from leveret_proto.messages import Event, GroupEvent, NumberedEvent, SubmissionEvent
from leveret_proto.messages.replay import StreamOffset

#: How many (job, source) are remembered by their last seq, and how many events that have none.
REMEMBERED = 1000
REMEMBERED_UNNUMBERED = 100


@dataclass(frozen=True)
class Cursor:
    """A place in the stream, and what the last events before it were.

    A service that crashes between publishing an event and noting that it did publishes it again: the stream has it
    twice. What is remembered here tells the second from a new one.

    Attributes:
        offset: all up to this place has been given. None: nothing yet.
        since: events older than this are passed over. None once the end was reached.
    """

    offset: int | None = None
    since: datetime | None = None
    _seqs: Mapping[tuple[int, str], int] = field(default_factory=dict)
    _unnumbered: tuple[str, ...] = ()

    def has(self, event: Event) -> bool:
        """Whether `event` has been given."""
        if isinstance(event, NumberedEvent):
            return event.seq <= self._seqs.get((event.facts.job, event.source), 0)
        return _identity(event) in self._unnumbered

    def past(self, offset: int, event: Event) -> "Cursor":
        """Give the cursor behind `event`, which stands at `offset`."""
        if not isinstance(event, NumberedEvent):
            told = (*self._unnumbered, _identity(event))[-REMEMBERED_UNNUMBERED:]
            return replace(self, offset=offset, _unnumbered=told)
        seqs = dict(self._seqs)
        # the one heard of last comes last
        seqs.pop((event.facts.job, event.source), None)
        seqs[event.facts.job, event.source] = event.seq
        if len(seqs) > REMEMBERED:
            del seqs[next(iter(seqs))]
        return replace(self, offset=offset, _seqs=seqs)

    def moved(self, offset: int | None, *, end: bool) -> "Cursor":
        """Give the cursor behind a page that leads up to `offset`; `end`: there was no more in the stream."""
        return replace(self, offset=self.offset if offset is None else offset, since=None if end else self.since)

    def dump(self) -> str:
        """Give the cursor as JSON."""
        seqs = tuple((job, source, seq) for (job, source), seq in self._seqs.items())
        kept = _Kept(version=1, offset=self.offset, since=self.since, seqs=seqs, unnumbered=self._unnumbered)
        return kept.model_dump_json(exclude_none=True)

    @classmethod
    def parse(cls, text: str | bytes) -> "Cursor":
        """Read what `dump` gave. Raises pydantic's ValidationError."""
        kept = _Kept.model_validate_json(text)
        return cls(kept.offset, kept.since, {(job, source): seq for job, source, seq in kept.seqs}, kept.unnumbered)


class _Kept(BaseModel):
    version: Literal[1]
    offset: StreamOffset | None = None
    since: datetime | None = None
    seqs: Annotated[tuple[tuple[int, str, int], ...], Field(max_length=REMEMBERED)] = ()
    unnumbered: Annotated[tuple[str, ...], Field(max_length=REMEMBERED_UNNUMBERED)] = ()


def _identity(event: Event) -> str:
    """Give what is the same in a repeat of an event without a number, and in no other event."""
    if isinstance(event, SubmissionEvent):
        parts = (event.owner, event.project, event.submission)
    elif isinstance(event, GroupEvent):
        parts = (event.group.owner, event.group.group, event.group.state)
    else:
        assert not isinstance(event, NumberedEvent)
        parts = (event.worker, event.state, None)
    return json.dumps((event.TYPE, *parts, event.at.isoformat()), ensure_ascii=False)


class CursorStore(Protocol):
    """Where a subscriber keeps its cursor. Both are called in a thread, one at a time."""

    def load(self) -> Cursor | None:
        """Give the cursor saved last; None where none was."""

    def save(self, cursor: Cursor) -> None:
        """Keep `cursor` in place of the one before; when this returns it must be safe."""


class CursorMemory:
    """Keeps a cursor as long as the process lives."""

    def __init__(self, cursor: Cursor | None = None) -> None:
        self._cursor = cursor

    def load(self) -> Cursor | None:
        return self._cursor

    def save(self, cursor: Cursor) -> None:
        self._cursor = cursor


class CursorFile:
    """Keeps a cursor in a file that is replaced as a whole: a crash leaves the old one or the new one.

    One subscriber at a time may use it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def load(self) -> Cursor | None:
        """Read the file. Raises CursorUnusable where it holds something else, or can't be read."""
        try:
            return Cursor.parse(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise CursorUnusable(
                f"{self.path} holds no cursor: {describe(error)}; name another file, or remove it to begin anew"
            ) from None
        except OSError as error:
            raise CursorUnusable(f"{self.path}: {error.strerror}") from error

    def save(self, cursor: Cursor) -> None:
        """Write the file and sync it to disk. Raises CursorUnusable."""
        fresh = self.path.with_name(self.path.name + ".new")
        try:
            with fresh.open("w") as out:
                out.write(cursor.dump())
                out.flush()
                os.fsync(out.fileno())
            fresh.replace(self.path)
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise CursorUnusable(f"{self.path}: {error.strerror}; the cursor can't be kept there") from error
