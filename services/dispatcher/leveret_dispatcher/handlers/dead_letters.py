"""The dead-letter desk's intake: whatever failed anywhere is filed in `dispatch.dead`, a bounded number of bytes.

A flood of dead letters stops nothing else: filing changes nothing that is kept in memory, so it waits for no other
change of the leader's, and none waits for it.
"""

import asyncio

from aio_pika.abc import AbstractConnection

from leveret_dispatcher import dead_store
from leveret_dispatcher.dead_letters import Delivered, read
from leveret_dispatcher.desk import Desk
from leveret_dispatcher.handlers.reading import Delivery, batches, settle_batch
from leveret_dispatcher.metrics import LETTERS_FILED
from leveret_proto.topology import DISPATCHER_DEAD
from leveret_runtime.failpoints import failpoint

BATCH = 20


async def consume_dead_letters(desk: Desk, on: AbstractConnection, stop: asyncio.Event) -> None:
    """File dead letters until `stop` is set."""
    async for batch in batches(on, DISPATCHER_DEAD, stop, BATCH):
        letters = [read(_delivered(delivery)) for delivery in batch]
        async with desk.leadership.transaction() as tx:
            await dead_store.file(tx, letters, desk.config.dead_most, desk.config.dead_bytes_most)
            failpoint("dispatcher.dead.before-commit")
        for letter in letters:
            LETTERS_FILED.labels("broker" if letter.service is None else "service").inc()
        failpoint("dispatcher.dead.before-ack")
        await settle_batch(batch)


def _delivered(delivery: Delivery) -> Delivered:
    return Delivered(
        delivery.routing_key or "", dict(delivery.headers), delivery.body,
        type=delivery.type, message_id=delivery.message_id, content_type=delivery.content_type,
    )  # fmt: skip
