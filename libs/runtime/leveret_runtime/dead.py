"""Dead letters: a message that can't be read goes to `leveret.dead` with its reason, then its delivery is acked."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import structlog
from aio_pika.abc import AbstractIncomingMessage

from leveret_proto.envelope import RAW, Parcel
from leveret_proto.topology import DEAD
from leveret_runtime.broker import Publisher, settle
from leveret_runtime.hostile_frames import UNREADABLE_HEADERS
from leveret_runtime.metrics import DEAD_LETTERS

log = structlog.get_logger(__name__)

#: Bytes of the body that are kept.
KEPT = 64 * 1024
#: Characters of JSON that a message's headers may take to be kept.
HEADERS_KEPT = 16 * 1024


async def file_dead(
    publisher: Publisher, message: AbstractIncomingMessage, queue: str, reason: str, *, app: str
) -> None:
    """File `message`, which came from `queue` and failed for `reason`, and ack it.

    Raises:
        BrokerAway: nothing was acked; the message comes again.
    """
    headers: dict[str, Any] = {
        "x-leveret-reason": reason[:1024],
        "x-leveret-service": app,
        "x-leveret-exchange": message.exchange or "",
        "x-leveret-key": message.routing_key or "",
        "x-leveret-sha256": hashlib.sha256(message.body).hexdigest(),
        "x-leveret-bytes": len(message.body),
    }
    if message.message_id:
        headers["x-leveret-message-id"] = message.message_id[:255]
    carried = carried_headers(message.headers)
    if carried is not None:
        headers["x-leveret-headers"] = carried
    parcel = Parcel(message.body[:KEPT], message.type or "", message.content_type or RAW, headers)
    await publisher.send(DEAD, queue, parcel, app=app)
    DEAD_LETTERS.labels(queue).inc()
    log.warning("dead letter", queue=queue, reason=reason, bytes=len(message.body))
    await settle(message)


def carried_headers(headers: Mapping[str, Any]) -> str | None:
    """Give a message's headers as JSON that reads back as the same ones.

    None where that can't be done: they are too long, could not be read, or have values that JSON has not (binary data,
    times, decimals). The message can still be filed, but not be published again as it came.
    """
    if UNREADABLE_HEADERS in headers:
        return None
    try:
        text = json.dumps(dict(headers), allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return None
    return text if len(text) <= HEADERS_KEPT else None
