"""A worker process with the process executor, for tests that play its dispatcher."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dispatcher_played import StartWorker
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
        given = {
            "LEVERET_WORKER_AMQP_URL": vhost.url("w1"),
            "LEVERET_WORKER_NAME": "w1",
            "LEVERET_WORKER_SLOTS": "1",
            "LEVERET_WORKER_SPOOL": str(spool),
            "LEVERET_WORKER_EXECUTOR": "process",
            "LEVERET_WORKER_UNSANDBOXED": "allow",
            "LEVERET_WORKER_DRAIN_LIMIT": "0",
            "LEVERET_WORKER_BEAT_INTERVAL": "0.5",
        }
        return await services.start("leveret_worker.main", given | environment, failpoint=failpoint, ready=ready)

    return start
