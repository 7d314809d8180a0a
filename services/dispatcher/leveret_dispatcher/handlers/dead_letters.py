"""The dead-letter desk's intake: whatever failed anywhere is filed in `dispatch.dead`, a bounded number of rows."""

import asyncio
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aio_pika.abc import AbstractConnection

from leveret_dispatcher.desk import Desk
from leveret_dispatcher.handlers.reading import Delivery, batches, settle_batch
from leveret_dispatcher.store import storable
from leveret_proto.topology import DISPATCHER_DEAD
from leveret_runtime.dead import KEPT
from leveret_runtime.failpoints import failpoint

if TYPE_CHECKING:
    from leveret_runtime.db import Connection

BATCH = 20
#: Characters of the headers kept as history.
HISTORY = 8 * 1024


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What is filed. `size` and `sha256` are of the whole body, of which at most KEPT bytes are kept."""

    queue: str
    reason: str
    type: str
    message_id: str
    exchange: str
    key: str
    size: int
    sha256: str
    body: bytes
    history: str


async def consume_dead_letters(desk: Desk, on: AbstractConnection, stop: asyncio.Event) -> None:
    """File dead letters until `stop` is set."""
    async for batch in batches(on, DISPATCHER_DEAD, stop, BATCH):
        async with desk.transaction(lambda: failpoint("dispatcher.dead.before-commit")) as tx:
            await file(tx.on, [read(delivery) for delivery in batch], desk.config.dead_most)
        failpoint("dispatcher.dead.before-ack")
        await settle_batch(batch)


def read(delivery: Delivery) -> DeadLetter:
    """Take what a service (`x-leveret-*`) or the broker (`x-death`) says of a dead message, however it is made."""
    headers: dict[str, Any] = dict(delivery.headers)
    deaths = headers.get("x-death")
    death = deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else {}
    sent_to = death.get("routing-keys")
    by_broker = sent_to[0] if isinstance(sent_to, list) and sent_to else ""
    size = headers.get("x-leveret-bytes")
    return DeadLetter(
        queue=_text(delivery.routing_key, 255),
        reason=_text(headers.get("x-leveret-reason") or death.get("reason") or "unknown", 1024),
        type=_text(delivery.type, 255),
        message_id=_text(headers.get("x-leveret-message-id") or delivery.message_id, 255),
        exchange=_text(headers.get("x-leveret-exchange") or death.get("exchange"), 255),
        key=_text(headers.get("x-leveret-key") or by_broker, 255),
        size=size if isinstance(size, int) and 0 <= size < 2**63 else len(delivery.body),
        sha256=_text(headers.get("x-leveret-sha256"), 64) or hashlib.sha256(delivery.body).hexdigest(),
        body=delivery.body[:KEPT],
        history=_text(json.dumps(headers, default=str), HISTORY),
    )


async def file(on: "Connection", letters: list[DeadLetter], most: int) -> None:
    """Insert `letters`; past `most` rows the oldest go."""
    await on.executemany(
        """
        insert into dead (queue, reason, type, message_id, exchange, key, bytes, sha256, body, history)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        """,
        [
            (
                one.queue, one.reason, one.type, one.message_id, one.exchange, one.key, one.size, one.sha256,
                one.body, one.history,
            )
            for one in letters
        ],
    )  # fmt: skip
    await on.execute("delete from dead where id <= (select id from dead order by id desc offset $1 limit 1)", most)


def _text(value: object, most: int) -> str:
    if value is None:
        return ""
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    kept = storable(text.encode(errors="replace").decode()[:most])
    return kept or ""
