"""Submit a build manifest with plain aio-pika, as JSON with its circumstances, and wait for the answer.

    leveret up                                        # in another terminal; it prints the address and the owner
    export LEVERET_AMQP_URL=amqp://… LEVERET_OWNER=~me
    pip install aio-pika
    python publish_aio_pika.py hello.yml

Prints the answer: `{"job": …}` with the job's id, or every fault found. Exit status 0 or 1.
"""

import asyncio
import json
import os
import sys
import uuid
from pathlib import Path
from urllib.parse import quote

import aio_pika

ANSWER_LIMIT = 30  # seconds
REPLY_TO = "amq.rabbitmq.reply-to"  # RabbitMQ's direct reply-to: answers without a queue


def word(text: str) -> str:
    """One word of a routing key: percent-escaped, so that no dot or wildcard in it means anything."""
    return quote(text, safe="~/@:+,=!-_").replace(".", "%2E")


async def submit(manifest: str, owner: str, project: str) -> dict:
    """Publish and give the answer. Raises TimeoutError when none comes in time."""
    submission = {"manifest": manifest, "note": "from publish_aio_pika.py", "tags": ["example"], "visibility": "public"}
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def on_answer(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        answer.set_result(message.body)

    async with asyncio.timeout(ANSWER_LIMIT), await aio_pika.connect(os.environ["LEVERET_AMQP_URL"]) as connection:
        # on_return_raises: a manifest that nobody takes is an error here, not a silence
        channel = await connection.channel(on_return_raises=True)
        replies = await channel.get_queue(REPLY_TO, ensure=False)
        await replies.consume(on_answer, no_ack=True)
        exchange = await channel.get_exchange("leveret.submit", ensure=False)
        await exchange.publish(
            aio_pika.Message(
                json.dumps(submission).encode(),
                content_type="application/json",
                type="job.submission.v1",
                message_id=str(uuid.uuid4()),
                reply_to=REPLY_TO,
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            ),
            f"{word(owner)}.{word(project)}",
        )
        return json.loads(await answer)


async def main() -> int:
    answer = await submit(Path(sys.argv[1]).read_text(encoding="utf-8"), os.environ["LEVERET_OWNER"], "examples")
    print(json.dumps(answer, indent=2))
    return 0 if "job" in answer else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
