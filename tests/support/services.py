"""Leveret's services as real processes under test: started, waited for, crashed, ended."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from leveret_embedded.child import Child

READY_LIMIT = 30.0
#: Characters shown of each log of a failed test.
_SHOWN = 20_000
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    # no file of a Leveret that is installed on this machine
    "CONFIGURATION_DIRECTORY": "/nonexistent",
    # The tests of confinement require it; the others run wherever a contributor is.
    "LEVERET_WORKER_ISOLATION": "try",
}


@dataclass(frozen=True)
class Service:
    """A running service; its output is in `log`."""

    module: str
    _child: Child

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child.running

    @property
    def log(self) -> Path:
        return self._child.log

    async def until_ready(self, limit: float = READY_LIMIT) -> None:
        """Waits for the service's READY=1. Raises ProgramFailedError with the end of its log."""
        await self._child.until_ready(limit)

    async def wait(self, limit: float | None = READY_LIMIT) -> int:
        """Waits for its end; `limit` None: for ever. Returns the exit status, negative for a signal.

        Raises TimeoutError.
        """
        async with asyncio.timeout(limit):
            return await self._child.wait()

    async def until_crashed(self, limit: float = READY_LIMIT) -> None:
        """Waits for the SIGKILL of its failpoint; any other end is a failure of the test."""
        status = await self.wait(limit)
        assert status == -signal.SIGKILL, f"{self.module} ended with {status} instead of crashing at its failpoint"

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        await self._child.kill()

    async def terminate(self) -> None:
        """SIGTERM; returns when it is gone, by force if it takes longer than 20 s."""
        await self._child.stop()


@dataclass
class Services:
    """Starts services for one test and remembers their logs, which pytest shows when the test fails."""

    folder: Path
    started: list[Service] = field(default_factory=list)

    async def start(
        self,
        module: str,
        environment: Mapping[str, str],
        *,
        arguments: tuple[str, ...] = (),
        failpoint: str | None = None,
        ready: bool = True,
        limit: float = READY_LIMIT,
    ) -> Service:
        """Starts `python -m module` with nothing of our environment but `environment`.

        failpoint: `name` or `name:passage` at which it kills itself (LEVERET_FAILPOINT).
        ready: whether to wait for its readiness, at most `limit` seconds.
        """
        variables = _ENVIRONMENT | dict(environment)
        if failpoint is not None:
            variables["LEVERET_FAILPOINT"] = failpoint
        log = self.folder / f"{len(self.started) + 1:02}-{module}.log"
        child = await Child.start([sys.executable, "-m", module, *arguments], env=variables, cwd=self.folder, log=log)
        service = Service(module, child)
        self.started.append(service)
        if ready:
            await service.until_ready(limit)
        return service

    def reports(self) -> list[tuple[str, str]]:
        """Title and content of the logs of the services that were started last."""
        return [
            (f"{service.log.name} (pid {service.pid})", service.log.read_text(errors="replace")[-_SHOWN:])
            for service in self.started[-12:]
        ]


@asynccontextmanager
async def services_in(folder: Path) -> AsyncIterator[Services]:
    """A starter of services for the length of the block, which ends with all of them gone."""
    services = Services(folder)
    try:
        yield services
    finally:
        async with asyncio.TaskGroup() as group:
            for service in services.started:
                group.create_task(service.terminate())


#: Where a test's item keeps the services whose logs are shown when it fails.
STASH = pytest.StashKey[Services]()
