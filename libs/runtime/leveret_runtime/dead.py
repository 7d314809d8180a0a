"""Dead letters: a message that can't be read goes to `leveret.dead` with its reason, then its delivery is acked."""

import hashlib

import structlog
from aio_pika.abc import AbstractIncomingMessage

from leveret_proto.envelope import RAW, Parcel
from leveret_proto.topology import DEAD
from leveret_runtime.broker import Publisher, settle

log = structlog.get_logger(__name__)

#: Bytes of the body that are kept.
KEPT = 64 * 1024


async def file_dead(
    publisher: Publisher, message: AbstractIncomingMessage, queue: str, reason: str, *, app: str
) -> None:
    """File `message`, which came from `queue` and failed for `reason`, and ack it.

    Raises:
        BrokerAway: nothing was acked; the message comes again.
    """
    headers = {
        "x-leveret-reason": reason[:1024],
        "x-leveret-service": app,
        "x-leveret-exchange": message.exchange or "",
        "x-leveret-key": message.routing_key or "",
        "x-leveret-sha256": hashlib.sha256(message.body).hexdigest(),
        "x-leveret-bytes": len(message.body),
    }
    if message.message_id:
        headers["x-leveret-message-id"] = message.message_id[:255]
    parcel = Parcel(message.body[:KEPT], message.type or "", message.content_type or RAW, headers)
    await publisher.send(DEAD, queue, parcel, app=app)
    log.warning("dead letter", queue=queue, reason=reason, bytes=len(message.body))
    await settle(message)
