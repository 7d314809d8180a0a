"""A broker that takes the connection and then answers nothing: it is away, as one that can't be reached."""

from collections.abc import Awaitable, Callable

import pytest
from aio_pika.abc import AbstractConnection
from pydantic import SecretStr

from leveret_client.calls import Calls
from leveret_client.subscription import Subscription
from leveret_runtime.away import BrokerAway
from leveret_runtime.broker import connection
from tests.support.proxy import proxy_to
from tests.support.vhosts import Vhost


async def opens_calls(on: AbstractConnection) -> Callable[[], Awaitable[object]]:
    return lambda: Calls.open(on)


async def opens_a_subscription(on: AbstractConnection) -> Callable[[], Awaitable[object]]:
    return lambda: Subscription.open(on)


async def binds(on: AbstractConnection) -> Callable[[], Awaitable[object]]:
    subscription = await Subscription.open(on)
    return subscription.bind_workers


@pytest.mark.parametrize("step", [opens_calls, opens_a_subscription, binds])
async def test_a_broker_that_stalls_is_away(
    vhost: Vhost,
    monkeypatch: pytest.MonkeyPatch,
    step: Callable[[AbstractConnection], Awaitable[Callable[[], Awaitable[object]]]],
) -> None:
    await vhost.provision()
    url = vhost.url()
    async with proxy_to(url) as proxy, connection(SecretStr(proxy.url(url)), "test") as on:
        stalls = await step(on)
        for module in ("calls", "subscription"):
            monkeypatch.setattr(f"leveret_client.{module}.CONNECT_LIMIT", 0.2)
        with proxy.silent(), pytest.raises(BrokerAway, match="RabbitMQ: TimeoutError"):
            await stalls()
