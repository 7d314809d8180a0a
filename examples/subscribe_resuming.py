"""Follow builds without missing one, with plain aio-pika: ask for what is new, remember the place, go on from there.

    leveret up                                        # in another terminal; it prints the address and the owner
    export LEVERET_AMQP_URL=amqp://… LEVERET_OWNER=~me
    pip install aio-pika
    python subscribe_resuming.py place.json           # until Ctrl-C or worse; run it again to go on

Events are asked for with the command `replay`. A live event only says that it is worth asking. An event that was
printed, but not yet remembered when this was killed, is printed again; so is the rare one that a service told twice.
"""

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aio_pika

POLL = 5  # seconds: a live event may get lost, or come before it can be asked for
ANSWER = 15  # seconds
REPLY_TO = "amq.rabbitmq.reply-to"
KINDS = ("job", "task", "log", "delivery", "submission", "group")
VISIBILITIES = ("public", "unlisted", "private")
Bell = asyncio.Queue[aio_pika.abc.AbstractIncomingMessage]


async def ask(channel: aio_pika.abc.AbstractChannel, replies: Bell, owner: str, after: int | None) -> dict[str, Any]:
    """Ask for the events past the place `after`; give the answer."""
    body = json.dumps({} if after is None else {"after": after}).encode()
    message = aio_pika.Message(body, type="command.replay.v1", content_type="application/json", reply_to=REPLY_TO)
    commands = await channel.get_exchange("leveret.commands", ensure=False)
    await commands.publish(message, f"replay.{owner}")
    reply = await asyncio.wait_for(replies.get(), ANSWER)
    answer: dict[str, Any] = json.loads(reply.body)
    if reply.type != "reply.replay.v1":
        sys.exit(answer["message"])
    return answer


async def main(path: Path) -> None:
    owner = quote(os.environ["LEVERET_OWNER"], safe="~/@:+,=!-_").replace(".", "%2E")
    after = json.loads(path.read_text()) if path.exists() else None
    async with await aio_pika.connect(os.environ["LEVERET_AMQP_URL"]) as connection:
        channel = await connection.channel()
        replies, bell = Bell(), Bell()
        await (await channel.get_queue(REPLY_TO, ensure=False)).consume(replies.put, no_ack=True)
        queue = await channel.declare_queue(exclusive=True)
        for kind in KINDS:
            for visibility in VISIBILITIES:
                await queue.bind("leveret.events", f"{kind}.{visibility}.{owner}.#")
        await queue.consume(bell.put, no_ack=True)
        while True:
            while not bell.empty():
                bell.get_nowait()  # however many rang: one page has what they are about
            page = await ask(channel, replies, owner, after)
            for event in page["events"]:
                print(event["offset"], event["type"], json.dumps(event["body"]), sep="\t", flush=True)
            if page.get("next", after) != after:
                after = page["next"]
                path.with_suffix(".new").write_text(json.dumps(after))
                path.with_suffix(".new").replace(path)  # as a whole: a crash leaves the old place or the new one
            if page["end"]:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(bell.get(), POLL)


if __name__ == "__main__":
    try:
        asyncio.run(main(Path(sys.argv[1])))
    except KeyboardInterrupt:
        pass
