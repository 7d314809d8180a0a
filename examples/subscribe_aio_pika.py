"""Follow builds with plain aio-pika: status events and live logs on one queue.

    leveret up                                        # in another terminal; it prints the address and the owner
    export LEVERET_AMQP_URL=amqp://… LEVERET_OWNER=~me
    pip install aio-pika
    python subscribe_aio_pika.py                      # until Ctrl-C

Log pieces have their offset in a header: one that begins behind the end of the last was preceded by others, which the
log's address (in task events, `task.log_url`) has from its first byte. See subscribe_pika.py for repeats and gaps.
"""

import asyncio
import json
import os
import sys
from urllib.parse import quote

import aio_pika

KINDS = ("job", "task", "log", "delivery", "submission")
VISIBILITIES = ("public", "unlisted", "private")
BACKLOG = 64 * 1024 * 1024  # bytes the broker keeps for us before it drops the oldest


def word(text: str) -> str:
    """One word of a routing key: percent-escaped, so that no dot or wildcard in it means anything."""
    return quote(text, safe="~/@:+,=!-_").replace(".", "%2E")


def show(message: aio_pika.abc.AbstractIncomingMessage) -> None:
    """Print an event, or the lines of a piece of a log."""
    if message.type == "log.tail.v1":
        about = f"{message.headers['job']} {message.headers['task']}"
        for line in message.body.decode(errors="replace").splitlines():
            print(f"{about} | {line}", flush=True)
        return
    event = json.loads(message.body)
    if message.type == "job.event.v1":
        print(f"{event['facts']['job']} {event['status']} ({event['reason']})", flush=True)
    elif message.type == "task.event.v1":
        print(f"{event['facts']['job']} {event['task']['name']} {event['task']['state']}", flush=True)
    else:
        print(message.routing_key, flush=True)


async def main() -> None:
    owner = word(os.environ["LEVERET_OWNER"])
    async with await aio_pika.connect(os.environ["LEVERET_AMQP_URL"]) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=100)
        queue = await channel.declare_queue(exclusive=True, arguments={"x-max-length-bytes": BACKLOG})
        for visibility in VISIBILITIES:
            for kind in KINDS:
                await queue.bind("leveret.events", f"{kind}.{visibility}.{owner}.#")
            await queue.bind("leveret.tail", f"{visibility}.{owner}.#")
        print("listening", file=sys.stderr, flush=True)
        async with queue.iterator() as messages:
            async for message in messages:
                show(message)
                await message.ack()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
