"""The command `replay`: an owner's events of the past, over the broker alone.

It has a connection and a session of its own: where the stream can't be read, logs are stored and served all the same.
"""

import asyncio

from aio_pika.abc import AbstractIncomingMessage
from pydantic import SecretStr

from leveret_logsink.past import Past, PastTheEndError
from leveret_logsink.replay_page import Page
from leveret_logsink.replying import reply
from leveret_proto.envelope import Unreadable, unpack_as
from leveret_proto.keys import RoutingKeyError, parse_command
from leveret_proto.messages import CommandFailed, Replay, ReplayReply
from leveret_proto.topology import LOGSINK_REPLAY, queue
from leveret_runtime.away import keep_going
from leveret_runtime.broker import Consumer, Publisher, connection, settle
from leveret_runtime.dead import file_dead


async def answer_replays(amqp_url: SecretStr, stop: asyncio.Event) -> None:
    """Answer `replay` until `stop` is set, through outages of the broker."""
    await keep_going(lambda: _session(amqp_url, stop), stop)


async def _session(amqp_url: SecretStr, stop: asyncio.Event) -> None:
    async with connection(amqp_url, "leveret-logsink replay") as on, asyncio.TaskGroup() as group:
        publisher = await Publisher.open(on)
        past = Past(on, publisher)
        done = asyncio.Event()
        group.create_task(past.follow(done))
        consumer = await Consumer.open(on, LOGSINK_REPLAY, prefetch=queue(LOGSINK_REPLAY).prefetch, stop=stop)
        # a page from the broker takes a second: the prefetch bounds how many are made at once
        async with asyncio.TaskGroup() as answering:
            async for message in consumer:
                answering.create_task(_answer(past, publisher, message))
        done.set()


async def _answer(past: Past, publisher: Publisher, message: AbstractIncomingMessage) -> None:
    try:
        owner = parse_command(message.routing_key or "").owner
        asked = unpack_as(Replay, message.body, message.type)
    except (Unreadable, RoutingKeyError) as error:
        await reply(publisher, message, CommandFailed(code="bad-request", message=str(error)))
        await file_dead(publisher, message, LOGSINK_REPLAY, str(error), app="logsink")
        return
    await reply(publisher, message, await _page(past, owner, asked))
    await settle(message)


async def _page(past: Past, owner: str, asked: Replay) -> ReplayReply | CommandFailed:
    page = Page(owner, asked)
    try:
        return page.reply(end=await past.fill(page, asked.since))
    except PastTheEndError as error:
        return CommandFailed(code="conflict", message=str(error))
