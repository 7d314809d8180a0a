"""A real worker gains and loses KVM while it lives: its bindings, its beats, and what becomes of the jobs.

Only the trial of KVM is the test's; it runs guests under TCG. Whether KVM itself works is for a host that has it.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from leveret_proto.messages import JobEvent, JobStatus, Reason, WorkerEvent
from leveret_worker.config import Config
from leveret_worker.main import work
from leveret_worker.qemu import Cages
from leveret_worker.qemu_executor import QemuExecutor
from tests.support.databases import Database
from tests.support.guest_images import stored_image
from tests.support.journal import proven
from tests.support.probes import ChosenProbes
from tests.support.services import Services
from tests.support.system import System, manifest, open_system, roles
from tests.support.vhosts import Vhost

pytestmark = [pytest.mark.vm, pytest.mark.image("debian/trixie"), pytest.mark.timeout(900)]

WORKER = "virtual"
IMAGE = "debian/trixie"
ARCH = os.uname().machine


@dataclass
class Bench:
    """A system with one worker more, whose trials the test chooses."""

    system: System
    executor: QemuExecutor
    probes: ChosenProbes = field(default_factory=ChosenProbes)

    async def told(self, *kvm: str) -> None:
        """Wait for the dispatcher's last word on the worker to be that it offers KVM for these."""

        def last() -> tuple[str, ...] | None:
            said = [e for e in self.system.journal.unnumbered if isinstance(e, WorkerEvent) and e.worker == WORKER]
            capabilities = said[-1].capabilities if said else None
            return capabilities.kvm if capabilities is not None else None

        await self.system.journal.until(lambda: last() == kvm, f"the worker told of with KVM for {kvm}")

    async def bound(self, key: str) -> bool:
        """Whether the worker's session can be granted jobs of this capability key."""
        vhost = self.system.vhost
        assert isinstance(vhost, Vhost)
        bindings: list[dict[str, Any]] = await vhost.api("GET", f"exchanges/{vhost.name}/leveret.work/bindings/source")
        return any(binding["routing_key"].startswith(f"{key}.{WORKER}.") for binding in bindings)

    async def submit(self) -> int:
        """A job that needs KVM."""
        build = ("build", "echo built")
        return await self.system.submit(manifest(build, image=IMAGE, leveret={"requires": {"kvm": True}}))


@asynccontextmanager
async def bench_of(vhost: Vhost, database: Database, services: Services) -> AsyncIterator[Bench]:
    image = stored_image(IMAGE)
    await vhost.provision(roles("w1", WORKER))
    async with open_system(vhost, database, services) as system:
        config = Config(
            amqp_url=vhost.url(WORKER),  # type: ignore[arg-type]
            name=WORKER, spool=services.folder / "spool", images=image.store.root,
            slots=1, beat_interval=2, drain_limit=0,
        )  # fmt: skip
        probes = ChosenProbes()
        stop = asyncio.Event()
        async with Cages() as cages, asyncio.TaskGroup() as group:
            executor = QemuExecutor(config, cages, probes)
            group.create_task(work(config, executor, stop))
            try:
                yield Bench(system, executor, probes)
            finally:
                stop.set()


async def test_kvm_proved_lost_and_regained_while_the_worker_lives(
    vhost: Vhost, database: Database, services: Services
) -> None:
    async with bench_of(vhost, database, services) as bench:
        journal = bench.system.journal
        await bench.told(ARCH)
        assert await bench.bound(f"{ARCH}.debian/trixie.kvm")
        first = await bench.submit()
        end = await journal.ended(first, limit=120)
        assert (end.status, end.worker, end.attempt) == (JobStatus.SUCCESS, WORKER, 1)
        assert b"built\n" in await proven((await journal.logs(end))["build"])

        bench.probes.virtualised = False
        bench.executor.prove_soon()
        await bench.told()
        assert not await bench.bound(f"{ARCH}.debian/trixie.kvm")
        assert await bench.bound(f"{ARCH}.debian/trixie.any")
        second = await bench.submit()
        waits = await journal.event(second, JobEvent, lambda event: event.reason is Reason.NO_WORKER)
        assert waits.status is JobStatus.PENDING
        assert "kvm" in (waits.detail or "")

        bench.probes.virtualised = True
        bench.executor.prove_soon()
        granted = await journal.event(second, JobEvent, lambda event: event.status is JobStatus.QUEUED)
        assert (granted.worker, granted.attempt) == (WORKER, 1)
        await bench.system.client.cancel(second)
        assert (await journal.ended(second)).status is JobStatus.CANCELLED
        for job in (first, second):
            journal.check(job)
