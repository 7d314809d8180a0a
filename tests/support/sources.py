"""Where a test session's broker and database come from: the environment, else Docker, else child processes of our own.

`LEVERET_TEST_AMQP`      administrator's `amqp://` URL of a broker for tests alone
`LEVERET_TEST_AMQP_API`  base URL of its management API; default port 15672 of the same host
`LEVERET_TEST_PG`        superuser's DSN of a database server for tests alone
"""

import functools
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from leveret_embedded import Broker, postgresql, rabbitmq
from tests.support import containers
from tests.support.background import held_open


@functools.cache
def docker_answers() -> bool:
    """Asked once a session."""
    return containers.docker_answers()


@contextmanager
def broker_source() -> Iterator[tuple[str, str]]:
    """An administrator's AMQP URL and the base URL of the management API, for the length of a session."""
    url = os.environ.get("LEVERET_TEST_AMQP")
    if url:
        yield url, os.environ.get("LEVERET_TEST_AMQP_API") or f"http://{urlsplit(url).hostname}:15672"
    elif docker_answers():
        with containers.rabbitmq_container() as found:
            yield found
    else:
        with _folder() as base, held_open(lambda: _throwaway_broker(base)) as broker:
            yield broker.amqp_url(), broker.management_url


@contextmanager
def database_source() -> Iterator[str]:
    """A superuser's DSN, for the length of a session."""
    dsn = os.environ.get("LEVERET_TEST_PG")
    if dsn:
        yield dsn
    elif docker_answers():
        with containers.postgresql_container() as found:
            yield found
    else:
        with _folder() as base, held_open(lambda: postgresql(base, fsync=False)) as server:
            yield server.dsn("postgres")


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="leveret-test-") as folder:
        yield Path(folder)


@asynccontextmanager
async def _throwaway_broker(base: Path) -> AsyncIterator[Broker]:
    """Killed at the end: its data goes too, and an orderly stop of the management plugin takes five seconds."""
    async with rabbitmq(base, definitions=None, management=True) as broker:
        try:
            yield broker
        finally:
            await broker.kill()
