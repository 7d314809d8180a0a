"""Fixtures for tests that need a real broker, a real database or real services; `tests/support` makes them.

One broker and one database server a session; a virtual host and a database for every test that asks.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from leveret_proto import permissions
from tests.support.background import held_open
from tests.support.databases import Database, new_database, prepared
from tests.support.dispatcher_played import DispatcherPlayed
from tests.support.guest_images import stored_image
from tests.support.services import STASH, Services, services_in
from tests.support.sources import broker_source, database_source
from tests.support.vhosts import TestBroker, Vhost, new_vhost

# How long an example takes is the machine's affair, not the code's.
settings.register_profile("leveret", deadline=None)
settings.load_profile("leveret")


#: Folders whose files take longest come first, so that several workers end together.
LONGEST_FIRST = ("chaos", "vm", "system", "integration", "unit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST_FIRST.index(item.path.relative_to(Path(__file__).parent).parts[0]))


@pytest.fixture(scope="session")
def broker() -> Iterator[TestBroker]:
    """The session's broker, with its management API."""
    with broker_source() as (url, api):
        yield TestBroker(url, api)


@pytest.fixture(scope="session")
def database_server() -> Iterator[str]:
    """A superuser's DSN of the session's database server, on which the services' roles exist."""
    with database_source() as dsn, held_open(lambda: prepared(dsn)) as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def images(request: pytest.FixtureRequest) -> None:
    """Builds what the file's `image` marks name before a test has connections, which would wither meanwhile."""
    for mark in request.node.iter_markers("image"):
        stored_image(*mark.args)


@pytest.fixture
async def vhost(broker: TestBroker) -> AsyncIterator[Vhost]:
    """This test's virtual host, empty: `await vhost.provision()` gives it Leveret's topology and accounts."""
    async with new_vhost(broker) as made:
        yield made


@pytest.fixture
async def database(database_server: str) -> AsyncIterator[Database]:
    """This test's database, empty."""
    async with new_database(database_server) as made:
        yield made


@pytest.fixture
async def services(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Services]:
    """Starts services as processes of their own; their logs are shown if the test fails."""
    async with services_in(tmp_path) as made:
        request.node.stash[STASH] = made
        yield made


@pytest.fixture
async def dispatcher(vhost: Vhost) -> AsyncIterator[DispatcherPlayed]:
    """A dispatcher that the test plays for the worker `w1`."""
    await vhost.provision({"w1": permissions.worker("w1")})
    async with DispatcherPlayed.listening(vhost.url()) as played:
        yield played


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report: pytest.TestReport = yield  # type: ignore[misc,assignment]
    services = item.stash.get(STASH, None)
    if services is not None and report.failed:
        report.sections.extend(services.reports())
    return report  # type: ignore[return-value]
