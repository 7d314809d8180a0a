"""Deliveries read in batches: what can't be read is filed as a dead letter, what can is handed on."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

from aio_pika.abc import AbstractConnection, AbstractIncomingMessage

from leveret_dispatcher.config import APP
from leveret_proto import keys
from leveret_proto.envelope import Unreadable
from leveret_proto.keys import RoutingKeyError
from leveret_proto.topology import queue as queue_of
from leveret_runtime.broker import Consumer, Publisher, settle
from leveret_runtime.dead import file_dead
from leveret_runtime.waits import Pace

T = TypeVar("T")
Delivery = AbstractIncomingMessage


async def batches(
    on: AbstractConnection, queue: str, stop: asyncio.Event, most: int, *, apart: float = 0.0
) -> AsyncIterator[list[Delivery]]:
    """Consume `queue` and give what has arrived, up to `most` at a time, until `stop` is set.

    Args:
        apart: seconds between two batches at least, so that they are worth a transaction when much arrives.
    """
    consumer = await Consumer.open(on, queue, prefetch=queue_of(queue).prefetch, stop=stop)
    pace = Pace(apart)
    async for message in consumer:
        await pace.turn()
        yield [message, *consumer.ready(most - 1)]


async def readable(
    deliveries: Sequence[Delivery], queue: str, read: Callable[[Delivery], T], publisher: Publisher
) -> list[tuple[Delivery, T]]:
    """Read each delivery; file those for which `read` raises Unreadable or RoutingKeyError."""
    good: list[tuple[Delivery, T]] = []
    for delivery in deliveries:
        try:
            good.append((delivery, read(delivery)))
        except (Unreadable, RoutingKeyError) as error:
            await file_dead(publisher, delivery, queue, str(error), app=APP)
    return good


async def settle_batch(batch: Sequence[Delivery]) -> None:
    """Ack every delivery of `batch` that was not filed (and so acked) already."""
    last = next((delivery for delivery in reversed(batch) if not delivery.processed), None)
    if last is not None:
        await settle(last, multiple=True)


def believed_worker(word: str, named: str) -> str:
    """Give the worker that a routing key names, which the broker vouches for; the body must name the same.

    Raises:
        Unreadable: they differ, or the name can't be stored.
    """
    if named != word:
        raise Unreadable(f"the routing key is worker {word!r}'s, the body says {named!r}")
    if "\0" in word:
        raise Unreadable("a worker's name can't hold NUL")
    return word


def worker_of(delivery: Delivery) -> str:
    """Read the worker that a message on `leveret.workers` comes from."""
    return keys.parse_worker(delivery.routing_key or "")
