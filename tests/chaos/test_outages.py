"""Outages longer than a lease: a build that outlives one is not lost, but for its worker's own silence.

A lease lasts three seconds here, an outage half as long again. In every test one build waits at a gate meanwhile.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from leveret_client import Client
from leveret_proto.messages import JobEvent, JobStatus, Reason
from tests.support.journal import proven
from tests.support.private_servers import PrivateServers, bring_back, frozen, private_servers
from tests.support.proxy import Proxy, proxy_to
from tests.support.services import STASH, Service, services_in
from tests.support.system import JOURNAL, OWNER, System, manifest, open_system, roles

pytestmark = pytest.mark.asyncio(loop_scope="module")

LEASE = 3.0
OUTAGE = 1.5 * LEASE
BEAT = 0.3


@dataclass(frozen=True)
class Waiting:
    """A build that waits at its gate."""

    system: System
    job: int
    folder: Path

    def open_gate(self, run: int = 1) -> None:
        (self.folder / f"gate-{run}").touch()

    def runs(self) -> list[str]:
        """The beginnings of the grants that ran, in order."""
        noted = self.folder / "runs"
        return noted.read_text().split() if noted.exists() else []

    async def until_runs(self, count: int) -> None:
        """Wait until as many runs have noted themselves."""
        async with asyncio.timeout(60):
            while len(self.runs()) < count:
                await asyncio.sleep(0.05)


@dataclass(frozen=True)
class Scene:
    """A system whose worker w1 reaches the broker through a proxy; w2 waits to be started."""

    system: System
    servers: PrivateServers
    proxy: Proxy

    async def submit(self, name: str) -> Waiting:
        """Start a build, and wait until it runs."""
        folder = self.system.services.folder / name
        folder.mkdir()
        # each run notes itself and waits at a gate of its own
        script = (
            f"set +x; echo $(basename $(dirname $HOME)) >> {folder}/runs; n=$(wc -l < {folder}/runs); "
            f"until [ -e {folder}/gate-$n ]; do sleep 0.05; done; echo through gate $n"
        )
        async with Client(self.system.amqp_url, OWNER, limit=30) as client:
            job = (await client.submit(manifest(("wait", script)), project="outages")).job
        waiting = Waiting(self.system, job, folder)
        await waiting.until_runs(1)
        return waiting

    async def settled(self, waiting: Waiting, *, attempt: int = 1) -> None:
        """The job succeeds with that attempt, of which the log is whole; every attempt ran once."""
        journal = self.system.journal
        end = await journal.ended(waiting.job)
        assert (end.status, end.reason, end.attempt) == (JobStatus.SUCCESS, Reason.COMPLETED, attempt), end
        assert f"through gate {attempt}\n".encode() in await proven((await journal.logs(end))["wait"])
        runs = waiting.runs()
        assert len(runs) == len(set(runs)) == attempt
        journal.check(waiting.job)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("outages")
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(private_servers(folder, roles("w1", "w2")))
        direct = servers.accounts.url("w1")
        proxy = await stack.enter_async_context(proxy_to(direct))
        services = await stack.enter_async_context(services_in(folder))
        changes = {"dispatcher": {"lease": LEASE}, "worker": {"beat_interval": BEAT, "amqp_url": proxy.url(direct)}}
        system = await stack.enter_async_context(
            open_system(servers.accounts, servers.database, services, changes=changes, steady=False)
        )
        await servers.accounts.until_on_disk(JOURNAL)
        yield Scene(system, servers, proxy)


@pytest.fixture
def scene(request: pytest.FixtureRequest, shared_scene: Scene) -> Scene:
    """The module's scene; its services' logs are shown if the test fails."""
    request.node.stash[STASH] = shared_scene.system.services
    return shared_scene


@asynccontextmanager
async def broker_frozen(scene: Scene) -> AsyncIterator[None]:
    with frozen(scene.servers.broker):
        yield


@asynccontextmanager
async def broker_dead(scene: Scene) -> AsyncIterator[None]:
    await scene.servers.broker.kill()
    yield
    await bring_back(scene.servers.broker)


@asynccontextmanager
async def database_frozen(scene: Scene) -> AsyncIterator[None]:
    with frozen(scene.servers.server):
        yield


@asynccontextmanager
async def database_dead(scene: Scene) -> AsyncIterator[None]:
    await scene.servers.server.kill()
    yield
    await bring_back(scene.servers.server)


@asynccontextmanager
async def dispatcher_frozen(scene: Scene) -> AsyncIterator[None]:
    pid = scene.system.running["dispatcher"].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


Outage = Callable[[Scene], AbstractAsyncContextManager[None]]


@pytest.mark.parametrize(
    "outage",
    [
        broker_frozen,
        database_frozen,
        dispatcher_frozen,
        pytest.param(broker_dead, marks=pytest.mark.slow),
        pytest.param(database_dead, marks=pytest.mark.slow),
    ],
)
async def test_a_build_outlives_an_outage_longer_than_its_lease(scene: Scene, outage: Outage) -> None:
    """One build goes on after the outage, the other has ended during it."""
    late = await scene.submit(f"late-{outage.__name__}")
    early = await scene.submit(f"early-{outage.__name__}")
    async with outage(scene):
        await asyncio.sleep(OUTAGE / 2)
        early.open_gate()
        await asyncio.sleep(OUTAGE / 2)
    await scene.settled(early)
    # a whole lease is what silence would take to show; beats come ten times as often
    await asyncio.sleep(LEASE + BEAT)
    late.open_gate()
    await scene.settled(late)


async def test_a_worker_cut_off_for_less_than_its_lease_loses_nothing(scene: Scene) -> None:
    waiting = await scene.submit("cut-short")
    with scene.proxy.silent():
        await asyncio.sleep(LEASE / 2)
    assert scene.proxy.cut() > 0
    await asyncio.sleep(LEASE)
    waiting.open_gate()
    await scene.settled(waiting)


@pytest.mark.parametrize("ends", ["never", "while it is cut off"])
async def test_a_worker_cut_off_for_longer_than_its_lease_has_its_attempt_run_again_elsewhere(
    scene: Scene, ends: str
) -> None:
    waiting = await scene.submit(f"cut-{ends.replace(' ', '-')}")
    journal, system = scene.system.journal, scene.system
    (first,) = waiting.runs()
    with scene.proxy.silent():
        if ends != "never":
            waiting.open_gate(1)  # it has a result, which it can tell nobody
        lost = await journal.event(waiting.job, JobEvent, lambda event: event.reason is Reason.LOST)
        assert lost.status is JobStatus.PENDING
        await system.start("worker", worker="w2", beat_interval=BEAT)
        await waiting.until_runs(2)
    # back again, it is told to abandon the old attempt, and forgets it
    spool = system.services.folder / "spool-w1" / "grants"
    async with asyncio.timeout(30):
        while list(spool.glob(f"{first}*")):
            await asyncio.sleep(0.05)
    assert not any(event.status.ended for event in journal.of(waiting.job, JobEvent))
    waiting.open_gate(2)
    await scene.settled(waiting, attempt=2)
    assert (await journal.ended(waiting.job)).worker == "w2"
    await system.running.pop("w2").terminate()


async def test_a_second_worker_of_one_name_is_refused_until_the_first_has_left(scene: Scene) -> None:
    system = scene.system
    waiting = await scene.submit("one-name")
    first = system.running["worker"]
    spool = system.services.folder / "spool-second"
    second = await system.start("worker", spool=spool, beat_interval=BEAT)
    await until_said(second, "another session of worker w1 is live")
    waiting.open_gate()
    await scene.settled(waiting)
    await first.terminate()
    after = await scene.submit("one-name-after")
    assert list((spool / "grants").iterdir())
    after.open_gate()
    await scene.settled(after)


async def until_said(service: Service, text: str) -> None:
    """Wait until the service's log says `text`."""
    async with asyncio.timeout(30):
        while text not in service.log.read_text():
            await asyncio.sleep(0.05)
