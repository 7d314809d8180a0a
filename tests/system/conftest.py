"""One running system for the tests of a module, which share nothing in it but the services."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.databases import new_database
from tests.support.services import STASH, services_in
from tests.support.sinks import HttpSink, MailSink, http_server, smtp_server
from tests.support.system import System, open_system, roles
from tests.support.vhosts import TestBroker, new_vhost


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def smtp() -> AsyncIterator[MailSink]:
    async with smtp_server() as sink:
        yield sink


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http() -> AsyncIterator[HttpSink]:
    async with http_server() as sink:
        yield sink


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_system(
    broker: TestBroker, database_server: str, tmp_path_factory: pytest.TempPathFactory, smtp: MailSink
) -> AsyncIterator[System]:
    async with (
        new_vhost(broker) as vhost,
        new_database(database_server) as database,
        services_in(tmp_path_factory.mktemp("system")) as services,
    ):
        await vhost.provision(roles("w1"))
        async with open_system(vhost, database, services, changes={"notifier": {"smtp_port": smtp.port}}) as system:
            yield system


@pytest.fixture
def system(request: pytest.FixtureRequest, shared_system: System) -> System:
    """The module's system; its services' logs are shown if the test fails."""
    request.node.stash[STASH] = shared_system.services
    return shared_system
