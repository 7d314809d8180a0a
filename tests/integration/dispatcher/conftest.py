"""The dispatcher's own fixture: a lab with two workers' accounts."""

from collections.abc import AsyncIterator

import pytest

from leveret_proto.permissions import worker
from tests.integration.dispatcher.dispatcher_lab import Lab, open_lab
from tests.support.databases import Database
from tests.support.vhosts import Vhost


@pytest.fixture
async def lab(vhost: Vhost, database: Database) -> AsyncIterator[Lab]:
    await vhost.provision({"w1": worker("w1"), "w2": worker("w2")})
    async with open_lab(vhost, database) as made:
        yield made
