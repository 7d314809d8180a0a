"""Which one exception a client's user sees when a session ends in several."""

import pytest
from aiormq.exceptions import AMQPConnectionError, ChannelInvalidStateError

from leveret_client import NotFound, NotReached
from leveret_client.errors import plain
from leveret_runtime.away import BrokerAway


@pytest.mark.parametrize(
    "ends",
    [
        pytest.param([BrokerAway("RabbitMQ: reset")], id="the-connection-noticed"),
        pytest.param([AMQPConnectionError("RabbitMQ: reset")], id="a-channel-noticed-first"),
        pytest.param([ChannelInvalidStateError("reset")], id="a-closed-channel-was-used"),
        pytest.param([NotFound("no job"), BrokerAway("RabbitMQ: reset")], id="it-explains-the-rest"),
    ],
)
def test_a_lost_broker_is_not_reached_whoever_noticed_it(ends: list[Exception]) -> None:
    error = plain(ExceptionGroup("session", [ExceptionGroup("block", ends)]))
    assert isinstance(error, NotReached)
    assert "reset" in str(error)


def test_anything_else_stays_what_it_is() -> None:
    assert isinstance(plain(ExceptionGroup("session", [NotFound("no job")])), NotFound)
