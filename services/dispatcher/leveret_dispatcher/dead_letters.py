"""A dead letter: what is made of a delivery from `leveret.dead`, and whether it can be published again. Pure.

A service that can't read a message says so in `x-leveret-*` headers, whose exchange and key come from the broker. Of a
message that the broker gave up only the broker's account (`x-death`) is believed: any other header is its sender's.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from leveret_dispatcher.store import storable
from leveret_proto.envelope import RAW, Parcel
from leveret_proto.topology import COMMANDS, queue
from leveret_proto.words import matches
from leveret_runtime.dead import HEADERS_KEPT, KEPT, carried_headers

#: Characters of the headers kept as history.
HISTORY = 8 * 1024
#: Headers that the broker adds when a message dies. Sent again, they could have it dropped as one that goes in circles.
_BROKERS = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count", "x-opt-")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What is filed. `size` and `sha256` are of the whole body, of which at most KEPT bytes are kept.

    Attributes:
        queue: where it died.
        service: who gave it up; None: the broker did.
        exchange: where it had been published, under `key`.
        headers: its own headers as JSON; None: they could not be kept.
        history: all its headers in text, among them the broker's account of its way.
    """

    queue: str
    reason: str
    service: str | None
    type: str
    message_id: str
    exchange: str
    key: str
    content_type: str
    headers: str | None
    size: int
    sha256: str
    body: bytes
    history: str

    @property
    def whole(self) -> bool:
        return len(self.body) == self.size

    @property
    def kept(self) -> int:
        """The bytes it takes on the desk, near enough."""
        texts = (self.reason, self.exchange, self.key, self.type, self.message_id, self.headers or "", self.history)
        return len(self.body) + sum(len(text.encode()) for text in texts)


@dataclass(frozen=True, slots=True)
class Delivered:
    """A delivery from `leveret.dead`. Everything but the routing key is hostile."""

    routing_key: str
    headers: Mapping[str, Any]
    body: bytes
    type: str | None = None
    message_id: str | None = None
    content_type: str | None = None


def read(delivered: Delivered) -> DeadLetter:
    """Take a dead message apart, however it is made."""
    headers = delivered.headers
    death = _last_death(headers)
    told = headers if death is None else {}
    if death is None:
        exchange, key, message_id = (told.get(f"x-leveret-{what}") for what in ("exchange", "key", "message-id"))
        carried = _text(told.get("x-leveret-headers"), HEADERS_KEPT) or None
    else:
        keys = death.get("routing-keys")
        exchange, key = death.get("exchange"), keys[0] if isinstance(keys, list) and keys else ""
        message_id = delivered.message_id
        carried = carried_headers({name: headers[name] for name in headers if not name.startswith(_BROKERS)})
    size, sha256 = told.get("x-leveret-bytes"), _text(told.get("x-leveret-sha256"), 64)
    return DeadLetter(
        queue=_text(delivered.routing_key, 255),
        reason=_text(told.get("x-leveret-reason") or (death or {}).get("reason") or "unknown", 1024),
        service=_text(told.get("x-leveret-service"), 64) or None,
        type=_text(delivered.type, 255),
        message_id=_text(message_id, 255),
        exchange=_text(exchange, 255),
        key=_text(key, 255),
        content_type=_text(delivered.content_type, 255),
        headers=carried,
        size=size if type(size) is int and len(delivered.body) <= size < 2**63 else len(delivered.body),
        sha256=sha256 if _is_digest(sha256) else hashlib.sha256(delivered.body).hexdigest(),
        body=delivered.body[:KEPT],
        history=_history(headers),
    )


def refusal(letter: DeadLetter) -> str | None:
    """Say why `letter` can't be published again as it came; None where it can.

    What exchange and key are has been told by headers, so they must be such that lead to the queue it died in.
    """
    if not letter.whole:
        return f"only {len(letter.body)} of its {letter.size} bytes were kept"
    if letter.headers is None:
        return "its headers could not be kept"
    if letter.exchange == COMMANDS:
        return "whoever gave a command waits for an answer, and gives it again"
    try:
        bindings = queue(letter.queue).bindings
    except KeyError:
        return f"{letter.queue!r} is none of Leveret's queues"
    if not any(letter.exchange == exchange and matches(pattern, letter.key) for exchange, pattern in bindings):
        return f"key {letter.key!r} on exchange {letter.exchange!r} does not lead to {letter.queue}, where it died"
    return None


def parcel(letter: DeadLetter) -> Parcel:
    """Give the message as it came. Raises ValueError where its headers are no JSON object."""
    headers = json.loads(letter.headers or "{}")
    if not isinstance(headers, dict):
        raise ValueError("its headers are no table")
    return Parcel(letter.body, letter.type, letter.content_type or RAW, headers, letter.message_id)


def _last_death(headers: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Give the broker's account of the last time the message died, which stands first; None where it never did."""
    deaths = headers.get("x-death")
    if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict):
        return deaths[0]
    return None


def _history(headers: Mapping[str, Any]) -> str:
    """Give the headers as JSON, cut off where they are long: what broker and services say of the death comes first."""
    ordered = sorted(headers, key=lambda name: (not name.startswith(_BROKERS), not name.startswith("x-leveret-")))
    told = {name: headers[name] for name in ordered if name != "x-leveret-headers"}
    return _text(json.dumps(told, default=str, ensure_ascii=False), HISTORY)


def _is_digest(text: str) -> bool:
    return len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)


def _text(value: object, most: int) -> str:
    if value is None:
        return ""
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return storable(text.encode(errors="replace").decode()[:most]) or ""
