"""A log as server-sent events (HTML standard, section 9.2): bytes as base64, ids as offsets. Pure.

    id: <offset of the byte after the piece>
    data: <base64 of the piece>

    event: end
    id: <bytes>-end
    data: {"state": "sealed", "bytes": 70000, "sha256": "9f86…"}

Base64, for a field's text ends at CR or LF and is decoded as UTF-8, and a log is any bytes. A reader that lost its
connection says the last id in `Last-Event-ID` and gets what follows. Who has had the end is answered 204, which is how
a browser is told not to come again.
"""

import base64
import json
import re

from leveret_logsink.verdict import State

_ID = re.compile(r"([0-9]{1,18})(-end)?", re.ASCII)

#: What keeps proxies from closing a silent connection, and finds out readers that have gone.
HEARTBEAT = b":\n\n"


class Ended(Exception):
    """The reader has had the end."""


def opening(milliseconds: int) -> bytes:
    """Give the beginning of a stream: after how long a reader may come again."""
    return b"retry: %d\n\n" % milliseconds


def piece(offset: int, body: bytes) -> bytes:
    """Give `body`, which lies at `offset`, as an event."""
    return b"id: %d\ndata: %b\n\n" % (offset + len(body), base64.b64encode(body))


def end(state: State, size: int, sha256: str | None) -> bytes:
    """Give the last event: the log is `sealed` or a `gap`."""
    told = json.dumps({"state": state, "bytes": size, "sha256": sha256})
    return b"event: end\nid: %d-end\ndata: %b\n\n" % (size, told.encode())


def resume(last_event_id: str | None) -> int | None:
    """Give the offset at which a reader goes on; None for one that has had nothing.

    Raises:
        Ended: nothing will follow.
        ValueError: that was no id of ours.
    """
    if not last_event_id:
        return None
    match = _ID.fullmatch(last_event_id)
    if match is None:
        raise ValueError("Last-Event-ID: expected the id of an event, which is an offset in bytes")
    if match[2]:
        raise Ended
    return int(match[1])
