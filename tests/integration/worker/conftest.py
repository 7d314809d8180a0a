"""A worker process with the process executor, for tests that play its dispatcher."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dispatcher_played import StartWorker
from tests.support.lone_worker import lone_worker
from tests.support.services import Service, Services
from tests.support.vhosts import Vhost


@pytest.fixture
def spool() -> Iterator[Path]:
    """Short: gpg's agent listens on a socket in the build's home, and those have short names."""
    with tempfile.TemporaryDirectory(prefix="lv-") as folder:
        yield Path(folder)


@pytest.fixture
def start_worker(vhost: Vhost, services: Services, spool: Path) -> StartWorker:
    async def start(*, failpoint: str | None = None, ready: bool = True, **environment: str) -> Service:
        given = lone_worker(vhost, spool, executor="process", unsandboxed="allow", beat_interval=0.5)
        return await services.start("leveret_worker.main", given | environment, failpoint=failpoint, ready=ready)

    return start
