"""The stage on which the tests of logsink play."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.logsink.stage import Stage, staged
from tests.support.databases import Database
from tests.support.services import Services
from tests.support.vhosts import Vhost


@pytest.fixture
async def stage(vhost: Vhost, database: Database, services: Services, tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(vhost, database, services, tmp_path / "storage") as made:
        yield made
