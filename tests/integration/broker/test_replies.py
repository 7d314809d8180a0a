"""Answers: through the default exchange, to direct reply-to or to a queue that the broker named."""

import asyncio

import pytest
from pamqp.commands import Basic

from leveret_proto import permissions
from leveret_proto import topology as t
from tests.integration.broker.account import Account
from tests.support.vhosts import Vhost

LIMIT = 15.0
REPLY_TO = "amq.rabbitmq.reply-to"


@pytest.mark.parametrize(
    ("service", "exchange", "key"),
    [("intake", t.SUBMIT, "me.p"), ("dispatcher", t.COMMANDS, "show.me"), ("logsink", t.COMMANDS, "history.me")],
)
async def test_who_asks_by_direct_reply_to_is_answered(vhost: Vhost, service: str, exchange: str, key: str) -> None:
    await vhost.provision({"me": permissions.submitter(("me",))})
    queue = next(queue.name for queue in t.QUEUES if any(bound[0] == exchange for bound in queue.bindings)
                 and queue.service == service)  # fmt: skip
    async with (
        Account.connected("me", vhost.url("me")) as me,
        Account.connected(service, vhost.url(service)) as answering,
        asyncio.timeout(LIMIT),
    ):
        arrived: asyncio.Queue[bytes] = asyncio.Queue()
        asking = await (await me.on.channel()).get_underlay_channel()

        async def take(message: object) -> None:
            arrived.put_nowait(message.body)  # type: ignore[attr-defined]

        await asking.basic_consume(REPLY_TO, take, no_ack=True)
        await asking.basic_publish(
            b"?", exchange=exchange, routing_key=key, properties=Basic.Properties(reply_to=REPLY_TO)
        )
        source = await (await answering.on.channel()).get_queue(queue, ensure=False)
        asked = await source.get(timeout=LIMIT)
        assert asked.reply_to is not None and asked.reply_to.startswith(f"{REPLY_TO}.")
        assert await answering.may_publish("", asked.reply_to, b"!")
        assert await arrived.get() == b"!"


@pytest.mark.parametrize("service", ["intake", "dispatcher", "logsink"])
async def test_a_queue_that_the_broker_named_is_answered(vhost: Vhost, service: str) -> None:
    await vhost.provision({"me": permissions.submitter(("me",))})
    async with (
        Account.connected("me", vhost.url("me")) as me,
        Account.connected(service, vhost.url(service)) as answering,
    ):
        name = await me.own_queue()
        assert name.startswith("amq.gen-")
        assert await answering.may_publish("", name, b"!")
        async with asyncio.timeout(LIMIT):
            source = await (await me.on.channel()).get_queue(name, ensure=False)
            assert (await source.get(timeout=LIMIT)).body == b"!"
