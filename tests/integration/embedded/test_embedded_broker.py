"""The private RabbitMQ: starts, survives a crash with its data, keeps apart from a second one, ends completely."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aio_pika
import pytest

from leveret_embedded import Broker, rabbitmq
from leveret_runtime.rabbit_password import HASHING_ALGORITHM, password_hash
from tests.support.processes import descendants, until_gone

DEFINITIONS = {
    "vhosts": [{"name": "here"}],
    "users": [
        {"name": "eve", "password_hash": password_hash("p@ss/w:rd"), "hashing_algorithm": HASHING_ALGORITHM, "tags": ""}
    ],
    "permissions": [{"user": "eve", "vhost": "here", "configure": ".*", "write": ".*", "read": ".*"}],
    "queues": [
        {
            "name": "kept",
            "vhost": "here",
            "durable": True,
            "auto_delete": False,
            "arguments": {"x-queue-type": "quorum"},
        }
    ],
}


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Broker]:
    async with rabbitmq(tmp_path / "rabbitmq", definitions=DEFINITIONS) as broker:
        yield broker


async def _publish(url: str, body: bytes) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(on_return_raises=True)
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, "kept")


async def _get(url: str) -> bytes:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue("kept", ensure=False)
        async with asyncio.timeout(30):
            message = await anext(aiter(queue.iterator()))
        await message.ack()
        return message.body


async def test_confirmed_messages_outlive_a_crash_on_the_same_port(stack: Broker) -> None:
    url = stack.amqp_url("eve", "p@ss/w:rd", "here")
    await _publish(url, b"before the crash")
    first = stack.pid

    await stack.kill()
    assert not stack.running
    await stack.restart()

    assert stack.pid != first
    assert await _get(url) == b"before the crash"


async def test_two_at_once_share_nothing_and_end_with_all_their_processes(tmp_path: Path, stack: Broker) -> None:
    mine = set(descendants())
    async with rabbitmq(tmp_path / "second") as second:
        assert len({*vars(stack.ports).values(), *vars(second.ports).values()}) == 8
        await _publish(stack.amqp_url(vhost="here"), b"first alone")
        async with await aio_pika.connect(second.amqp_url()) as connection:
            channel = await connection.channel()
            with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
                await channel.declare_queue("kept", passive=True)
        processes = set(descendants()) - mine
        names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in processes}
        assert {"beam.smp", "epmd"} <= names
    await until_gone(processes)
    with pytest.raises(RuntimeError, match="management=True"):
        _ = stack.management_url
