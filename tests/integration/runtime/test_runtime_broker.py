"""Publishing and consuming with a real RabbitMQ, whole and broken."""

import asyncio
from contextlib import suppress

import pytest
from aio_pika.abc import AbstractConnection
from pydantic import SecretStr

from leveret_proto.envelope import RAW, Parcel
from leveret_proto.topology import DISPATCHER_DEAD
from leveret_runtime.away import BrokerAway
from leveret_runtime.broker import Consumer, Publisher, Refused, Unroutable, connection, settle
from leveret_runtime.dead import KEPT, file_dead
from tests.support.proxy import proxy_to
from tests.support.vhosts import Vhost

LIMIT = 20.0


def parcel(body: bytes = b"x") -> Parcel:
    return Parcel(body, "test.v1", RAW, {"n": 1})


async def declare(on: AbstractConnection, name: str, **arguments: object) -> None:
    channel = await on.channel()
    await channel.declare_queue(name, durable=True, arguments=dict(arguments))  # type: ignore[arg-type]


class TestPublisher:
    async def test_a_message_arrives_with_its_properties(self, on: AbstractConnection) -> None:
        await declare(on, "q")
        publisher = await Publisher.open(on)
        sent = parcel(b"\x00\xff")
        await publisher.send("", "q", sent, app="test", reply_to="r", correlation_id="c", headers={"m": 2})
        async with asyncio.timeout(LIMIT):
            got = await (await Consumer.open(on, "q", prefetch=1)).__anext__()
        assert (got.body, got.type, got.content_type, got.message_id) == (b"\x00\xff", "test.v1", RAW, sent.message_id)
        assert (got.app_id, got.reply_to, got.correlation_id) == ("test", "r", "c")
        assert (got.headers, int(got.delivery_mode or 0)) == ({"n": 1, "m": 2}, 2)

    async def test_a_mandatory_message_without_a_queue_is_unroutable(self, on: AbstractConnection) -> None:
        publisher = await Publisher.open(on)
        with pytest.raises(Unroutable, match="no queue takes 'nowhere' on the default exchange"):
            await publisher.send("", "nowhere", parcel(), app="test")
        await publisher.send("", "nowhere", parcel(), app="test", mandatory=False)

    async def test_a_full_queue_refuses_and_takes_again_when_there_is_room(self, on: AbstractConnection) -> None:
        await declare(on, "full", **{"x-max-length": 1, "x-overflow": "reject-publish"})
        publisher = await Publisher.open(on)
        await publisher.send("", "full", parcel(), app="test")
        with pytest.raises(Refused, match="refused 'full'"):
            await publisher.send("", "full", parcel(), app="test")
        async with asyncio.timeout(LIMIT):
            await settle(await (await Consumer.open(on, "full", prefetch=1)).__anext__())
            while True:  # the ack has no answer of its own
                with suppress(Refused):
                    await publisher.send("", "full", parcel(), app="test")
                    break

    async def test_the_fate_of_many_at_once_is_told_to_each(self, on: AbstractConnection) -> None:
        await declare(on, "q")
        publisher = await Publisher.open(on)

        async def send(key: str) -> bool:
            try:
                await publisher.send("", key, parcel(), app="test")
            except Unroutable:
                return False
            return True

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(send("q" if number % 3 else "nowhere")) for number in range(60)]
        assert [task.result() for task in tasks] == [bool(number % 3) for number in range(60)]

    async def test_an_exchange_that_is_not_there_is_the_broker_away(self, on: AbstractConnection) -> None:
        publisher = await Publisher.open(on)
        with pytest.raises(BrokerAway, match="no exchange 'missing'"):
            await publisher.send("missing", "key", parcel(), app="test")

    async def test_a_cut_connection_is_the_broker_away(self, vhost: Vhost) -> None:
        async with proxy_to(vhost.url()) as proxy:

            async def session() -> None:
                async with asyncio.timeout(LIMIT), connection(SecretStr(proxy.url(vhost.url())), "test") as on:
                    await declare(on, "q")
                    publisher = await Publisher.open(on)
                    assert proxy.cut() == 1
                    while True:
                        await publisher.send("", "q", parcel(), app="test")

            with pytest.raises(ExceptionGroup) as raised:
                await session()
            assert raised.group_contains(BrokerAway)
            assert raised.value.split(BrokerAway)[1] is None


class TestConnection:
    async def test_nobody_listening_is_the_broker_away(self) -> None:
        with pytest.raises(BrokerAway, match="RabbitMQ: "):
            async with connection(SecretStr("amqp://a:b@127.0.0.1:1/v"), "test"):
                pass

    async def test_a_wrong_password_is_the_broker_away_and_not_shown(self, vhost: Vhost) -> None:
        url = vhost.url().replace(vhost.password("admin"), "not-the-password")
        with pytest.raises(BrokerAway) as raised:
            async with connection(SecretStr(url), "test"):
                pass
        assert "not-the-password" not in str(raised.value)

    async def test_a_block_that_only_waits_is_cancelled_when_the_connection_is_cut(self, vhost: Vhost) -> None:
        async with proxy_to(vhost.url()) as proxy:

            async def session() -> None:
                async with asyncio.timeout(LIMIT), connection(SecretStr(proxy.url(vhost.url())), "test"):
                    proxy.cut()
                    await asyncio.Event().wait()

            with pytest.raises(ExceptionGroup) as raised:
                await session()
            assert raised.group_contains(BrokerAway)

    async def test_the_broker_closing_it_is_the_broker_away(self, vhost: Vhost) -> None:
        async def session() -> None:
            async with asyncio.timeout(LIMIT), connection(SecretStr(vhost.url()), "test"):
                await vhost.api("DELETE", f"vhosts/{vhost.name}")
                await asyncio.Event().wait()

        with pytest.raises(ExceptionGroup) as raised:
            await session()
        assert raised.group_contains(BrokerAway)
        await vhost.api("PUT", f"vhosts/{vhost.name}", {})  # for the fixture, which removes it


class TestConsumer:
    async def test_deliveries_come_in_order_and_in_batches(self, on: AbstractConnection) -> None:
        await declare(on, "q")
        publisher = await Publisher.open(on)
        for number in range(5):
            await publisher.send("", "q", parcel(b"%d" % number), app="test")
        consumer = await Consumer.open(on, "q", prefetch=5)
        async with asyncio.timeout(LIMIT):
            got = [await consumer.__anext__()]
            while len(got) < 5:
                got += consumer.ready(5 - len(got)) or [await consumer.__anext__()]
        assert [message.body for message in got] == [b"0", b"1", b"2", b"3", b"4"]
        await settle(got[-1], multiple=True)
        assert consumer.ready(9) == []

    async def test_a_stop_ends_the_iteration_while_it_waits_and_before(self, on: AbstractConnection) -> None:
        await declare(on, "q")
        stop = asyncio.Event()
        consumer = await Consumer.open(on, "q", prefetch=1, stop=stop)
        async with asyncio.timeout(LIMIT):
            asyncio.get_running_loop().call_later(0.01, stop.set)
            assert [message async for message in consumer] == []
            assert [message async for message in consumer] == []

    async def test_what_was_not_acked_comes_again(self, vhost: Vhost) -> None:
        async with asyncio.timeout(LIMIT):
            async with connection(SecretStr(vhost.url()), "first") as on:
                await declare(on, "q")
                await (await Publisher.open(on)).send("", "q", parcel(b"again"), app="test")
                await (await Consumer.open(on, "q", prefetch=1)).__anext__()
            async with connection(SecretStr(vhost.url()), "second") as on:
                message = await (await Consumer.open(on, "q", prefetch=1)).__anext__()
                assert (message.body, message.redelivered) == (b"again", True)

    async def test_a_closed_channel_is_the_broker_away(self, on: AbstractConnection) -> None:
        await declare(on, "q")
        consumer = await Consumer.open(on, "q", prefetch=2)
        await (await Publisher.open(on)).send("", "q", parcel(), app="test")
        async with asyncio.timeout(LIMIT):
            message = await consumer.__anext__()
            await settle(message)
            await message.channel.basic_ack(message.delivery_tag or 0)  # twice: a fault the broker closes it for
            with pytest.raises(BrokerAway, match="unknown delivery tag"):
                await consumer.__anext__()

    async def test_a_deleted_queue_is_the_broker_away(self, on: AbstractConnection, vhost: Vhost) -> None:
        """The broker cancels the consumer and leaves the channel open: to wait on would be to wait for ever."""
        await declare(on, "q")
        consumer = await Consumer.open(on, "q", prefetch=1)
        async with asyncio.timeout(LIMIT):
            await vhost.api("DELETE", f"queues/{vhost.name}/q")
            with pytest.raises(BrokerAway, match=r"consumer .* was cancelled"):
                await consumer.__anext__()

    async def test_a_queue_that_is_not_there_is_the_broker_away(self, on: AbstractConnection) -> None:
        with pytest.raises(BrokerAway, match="no queue 'missing'"):
            await Consumer.open(on, "missing", prefetch=1)

    async def test_an_exclusive_queue_has_one_consumer(self, on: AbstractConnection) -> None:
        await declare(on, "q")
        await Consumer.open(on, "q", prefetch=1, exclusive=True)
        with pytest.raises(BrokerAway, match="exclusive"):
            await Consumer.open(on, "q", prefetch=1)

    async def test_acking_over_a_lost_connection_is_the_broker_away(self, vhost: Vhost) -> None:
        async with asyncio.timeout(LIMIT):
            async with connection(SecretStr(vhost.url()), "test") as on:
                await declare(on, "q")
                await (await Publisher.open(on)).send("", "q", parcel(), app="test")
                message = await (await Consumer.open(on, "q", prefetch=1)).__anext__()
            with pytest.raises(BrokerAway):
                await settle(message)


@pytest.mark.parametrize("reason", [None, asyncio.CancelledError])
async def test_a_connection_that_is_closed_before_a_confirm_is_a_broker_that_is_away(
    vhost: Vhost, reason: type[BaseException] | None
) -> None:
    """Not a cancelled sender, nor an error without a name: it would take its service down, or lose the message."""
    async with proxy_to(vhost.url()) as proxy:
        async with connection(SecretStr(proxy.url(vhost.url())), "test") as on, asyncio.TaskGroup() as group:
            publisher = await Publisher.open(on)
            with proxy.silent():
                sending = group.create_task(gone_away(publisher))
                while not publisher._channel.confirmations:
                    await asyncio.sleep(0)
                await publisher._channel._cancel_tasks(reason)
                assert await sending
        async with connection(SecretStr(vhost.url()), "test") as on, asyncio.TaskGroup() as group:
            publisher = await Publisher.open(on)
            sending = group.create_task(gone_away(publisher))
            await asyncio.sleep(0)
            sending.cancel()  # and who is cancelled is
    assert sending.cancelled()


async def gone_away(publisher: Publisher) -> bool:
    """Whether sending says that the broker is away."""
    try:
        await publisher.send("", DISPATCHER_DEAD, parcel(), app="test")
    except BrokerAway:
        return True
    return False


async def test_a_dead_letter_says_where_it_came_from_and_why(vhost: Vhost) -> None:
    await vhost.provision()
    async with asyncio.timeout(LIMIT), connection(SecretStr(vhost.url()), "test") as on:
        await declare(on, "q")
        publisher = await Publisher.open(on)
        sent = Parcel(b"x" * (KEPT + 1), "job.event.v9", RAW, {"carried": 1})
        await publisher.send("", "q", sent, app="test")
        await file_dead(
            publisher, await (await Consumer.open(on, "q", prefetch=1)).__anext__(), "q", "r" * 2000, app="mill"
        )
        dead = await (await Consumer.open(on, DISPATCHER_DEAD, prefetch=1)).__anext__()
    assert (dead.routing_key, dead.type, dead.app_id, dead.body) == ("q", "job.event.v9", "mill", b"x" * KEPT)
    told = {name.removeprefix("x-leveret-"): value for name, value in dead.headers.items()}
    assert told.pop("sha256") and told == {
        "reason": "r" * 1024, "service": "mill", "exchange": "", "key": "q", "bytes": KEPT + 1,
        "message-id": sent.message_id, "headers": '{"carried": 1}',
    }  # fmt: skip


async def test_a_peer_that_closes_before_it_has_said_anything_is_a_broker_that_is_away() -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        for _ in range(20):  # it shows in more than one way
            with pytest.raises(BrokerAway, match="RabbitMQ"):
                async with connection(SecretStr(f"amqp://guest:guest@127.0.0.1:{port}/"), "test"):
                    pass
