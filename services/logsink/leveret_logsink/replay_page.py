"""Which records of the stream an owner may be given, and how many of them make a page. Pure."""

import json

from leveret_logsink.ring import Record
from leveret_proto.base import Visibility
from leveret_proto.envelope import MAX_BODY, Unreadable, unpack
from leveret_proto.messages import (
    Event,
    GroupEvent,
    NumberedEvent,
    Replay,
    ReplayedEvent,
    ReplayReply,
    WorkerEvent,
)
from leveret_proto.words import escape

#: Bytes of events in a page. A reader takes replies of up to MAX_BODY.
PAGE_BYTES = 1024 * 1024
#: An event's bytes in a page besides its body.
_OVERHEAD = 512
#: An event past this can't be replayed: no reply could hold it.
LONGEST = MAX_BODY - 64 * 1024

_JOB_KINDS = ("job", "task", "log", "delivery")
_OTHER_KINDS = ("submission", "group")


class View:
    """What `owner` asked for and may see.

    The routing key rules most records out before their bodies are read; the body decides.
    """

    def __init__(self, owner: str, asked: Replay) -> None:
        self._owner = owner
        self._word = escape(owner)
        self._asked = asked

    def event(self, record: Record) -> Event | None:
        """Read the event of `record`; None where it is not to be given, or can't be read."""
        if not self._may_concern(record.key):
            return None
        try:
            event = unpack(record.body, record.type)
        except Unreadable:
            return None
        if not isinstance(event, Event) or not self._is_theirs(event):
            return None
        return event if self._asked.since is None or event.at >= self._asked.since else None

    def _may_concern(self, key: str) -> bool:
        kind, *words = key.split(".")
        if kind == "worker":
            return self._asked.workers
        if len(words) < 3 or not self._shown(words[0], own=words[1] == self._word):
            return False
        if kind in _JOB_KINDS:
            return self._asked.job is None or words[2] == str(self._asked.job)
        return kind in _OTHER_KINDS and self._asked.job is None

    def _is_theirs(self, event: Event) -> bool:
        if isinstance(event, WorkerEvent):
            return self._asked.workers
        if isinstance(event, NumberedEvent):
            facts = event.facts
            if self._asked.job not in (None, facts.job):
                return False
            return self._shown(facts.visibility, own=facts.owner == self._owner)
        if self._asked.job is not None:
            return False
        about = event.group if isinstance(event, GroupEvent) else event
        return self._shown(about.visibility, own=about.owner == self._owner)

    def _shown(self, visibility: str, *, own: bool) -> bool:
        return own or (self._asked.public and visibility == Visibility.PUBLIC)


class Page:
    """A page that is being filled with the records of a stream, in their order."""

    def __init__(self, owner: str, asked: Replay, *, most_bytes: int = PAGE_BYTES) -> None:
        self._view = View(owner, asked)
        self._limit = asked.limit
        self._most_bytes = most_bytes
        self._bytes = 0
        self._events: list[ReplayedEvent] = []
        self._truncated = False
        #: The record looked at last.
        self.place = asked.after

    def begin(self, first: int) -> None:
        """Note that the broker, asked for the stream from `place` on, began with the record at `first`.

        The record at `place` was seen once. Where it is gone, so may others be that came after it: the broker drops its
        oldest segments whole. (That places are left out proves nothing: it keeps some for itself.)
        """
        self._truncated = self.place is not None and first > self.place

    def offer(self, record: Record) -> bool:
        """Look at the next record. False: the page is full, and the record is for the next one."""
        if self.place is not None and record.offset <= self.place:
            return True
        event = self._view.event(record)
        if event is not None and len(record.body) <= LONGEST:
            size = len(record.body) + _OVERHEAD
            if self._events and (len(self._events) == self._limit or self._bytes + size > self._most_bytes):
                return False
            self._bytes += size
            self._events.append(
                ReplayedEvent(
                    offset=record.offset,
                    type=event.TYPE,
                    message_id=record.message_id or None,
                    body=json.loads(record.body),
                )
            )
        self.place = record.offset
        return True

    def reply(self, *, end: bool) -> ReplayReply:
        """Give the page as it is. `end`: all of the stream was offered."""
        return ReplayReply(events=tuple(self._events), next=self.place, end=end, truncated=self._truncated)
