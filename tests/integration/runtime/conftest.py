"""A virtual host and a database for the runtime's own parts."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aio_pika.abc import AbstractConnection
from pydantic import SecretStr

from leveret_runtime.broker import connection
from leveret_runtime.db import Database
from tests.support import databases, vhosts

LIMIT = 20.0


@pytest.fixture
async def on(vhost: vhosts.Vhost) -> AsyncIterator[AbstractConnection]:
    """An administrator's connection to the test's virtual host, which is empty."""
    async with asyncio.timeout(LIMIT), connection(SecretStr(vhost.url()), "test") as made:
        yield made


@pytest.fixture
async def schema(database: databases.Database) -> AsyncIterator[Database]:
    """The notifier's schema with what every schema has, and the notifier's own tables."""
    async with Database.open(SecretStr(database.dsn_for("notifier")), "notify") as opened:
        await opened.migrate("leveret_notifier")
        yield opened
