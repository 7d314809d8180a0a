"""What everything is compared with: persistent messages published, confirmed, consumed and acked in plain aio-pika."""

import asyncio
import subprocess
import sys
import time
import uuid

import aio_pika
from aio_pika.abc import AbstractQueue

WINDOW = 100
LIMIT = 60.0


async def plain_rate(url: str, *, size: int, count: int) -> float:
    """Give messages per second of `size` bytes from the first publish to the last ack.

    Measured in a process of its own, in which nothing of Leveret is: plain means plain.
    """
    argv = [sys.executable, "-m", "bench.plain", url, str(size), str(count)]
    process = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE)
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"plain aio-pika failed: exit status {process.returncode}")
    return float(output)


async def _rate(url: str, size: int, count: int) -> float:
    """Measure it here: through a quorum queue (as most of Leveret's are), with at most WINDOW unconfirmed.

    Publisher and consumer have a connection each.
    """
    async with asyncio.timeout(LIMIT), await aio_pika.connect(url) as sending, await aio_pika.connect(url) as receiving:
        channel = await receiving.channel(publisher_confirms=False)
        await channel.set_qos(prefetch_count=WINDOW)
        name = f"bench.{uuid.uuid4()}"
        queue = await channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum"})
        try:
            exchange = (await sending.channel(publisher_confirms=True)).default_exchange
            began = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                group.create_task(_consume(queue, count))
                await _publish(exchange, name, size, count)
            return count / (time.perf_counter() - began)
        finally:
            await queue.delete(if_unused=False, if_empty=False)


async def _publish(exchange: aio_pika.abc.AbstractExchange, key: str, size: int, count: int) -> None:
    window = asyncio.Semaphore(WINDOW)
    body = bytes(size)

    async def publish() -> None:
        await exchange.publish(aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT), key)
        window.release()

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            await window.acquire()
            group.create_task(publish())


async def _consume(queue: AbstractQueue, count: int) -> None:
    async with queue.iterator() as messages:
        async for message in messages:
            await message.ack()
            count -= 1
            if count == 0:
                return


if __name__ == "__main__":
    print(asyncio.run(_rate(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
