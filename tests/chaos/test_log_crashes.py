"""Logs while logsink and the broker are killed and connections cut: each is sealed, and is what its guest printed.

What is proved comes from the guests: each builds the SHA-256 of its own output and prints it in a task of its own.
`LEVERET_CHAOS_SEED` repeats a run's choice of deeds; each run prints its own.
"""

import asyncio
import random
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from leveret_proto.messages import JobEvent, JobStatus
from tests.support.fleet import Fleet
from tests.support.journal import proven
from tests.support.private_servers import PrivateServers, bring_back, frozen, private_servers
from tests.support.proxy import Proxy, proxy_to
from tests.support.services import STASH, services_in
from tests.support.system import JOURNAL, System, manifest, open_system, roles

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024
SLOTS = 20
#: Small, so that guests are held back whenever the broker is away.
BACKLOG = MIB // 2
#: What the pipes, the guest API's credit and the chunk in hand may hold besides.
SLACK = 2 * MIB
CHANGES: dict[str, dict[str, Any]] = {
    "dispatcher": {"log_limit": 256 * MIB, "job_log_limit": 256 * MIB},
    "logsink": {"log_limit": 258 * MIB},
    "worker": {"slots": SLOTS, "beat_interval": 1, "backlog_limit": BACKLOG},
}
#: Prints so many random bytes of a seed, notes after each block how many, and leaves the SHA-256 of all output.
EMIT = r"""
import hashlib, pathlib, random, sys
seed, count, progress = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
chance, digest, printed = random.Random(seed), hashlib.sha256(b"+ set +x\n"), 0
while printed < count:
    block = chance.randbytes(min(32768, count - printed))
    sys.stdout.buffer.write(block)
    sys.stdout.buffer.flush()
    digest.update(block)
    printed += len(block)
    progress.write_text(str(printed))
pathlib.Path("digest").write_text(digest.hexdigest() + "\n")
"""


@dataclass(frozen=True)
class Size:
    """How many builds print how many bytes each, and what is done to the services meanwhile, how often."""

    builds: int
    bytes: int
    logsink_kills: int
    broker_kills: int
    cuts: int


SMALL = Size(builds=6, bytes=2 * MIB + 17, logsink_kills=1, broker_kills=1, cuts=2)
LARGE = Size(builds=20, bytes=1024 * MIB // 20 + 1, logsink_kills=12, broker_kills=4, cuts=12)


@dataclass(frozen=True)
class Scene:
    """A system whose worker reaches the broker through a proxy."""

    system: System
    servers: PrivateServers
    proxy: Proxy
    folder: Path

    async def submit(self, name: str, seed: int, count: int, *, before: str = "true") -> int:
        """Start a build that prints `count` bytes, and after them their digest."""
        emit = f"set +x\n{before}\n{sys.executable} {self.folder}/emit.py {seed} {count} {self.folder}/{name}"
        return await self.system.submit_through(manifest(("emit", emit), ("digest", "cat digest")), name)

    def printed(self, *names: str) -> int:
        """How many bytes these builds have printed."""
        texts = [file.read_text() for name in names if (file := self.folder / name).exists()]
        return sum(int(text or 0) for text in texts)

    async def sealed(self, job: int, count: int, limit: float) -> None:
        """The job succeeds at its first attempt, and its log over HTTP is what its guest printed."""
        end = await self.system.journal.event(job, JobEvent, lambda event: event.status.ended, limit)
        assert (end.status, end.attempt) == (JobStatus.SUCCESS, 1), end
        logs = await self.system.journal.logs(end, limit)
        assert {log.status for log in logs.values()} == {"sealed"}
        said = re.search(rb"^[0-9a-f]{64}$", await proven(logs["digest"]), re.MULTILINE)
        assert said is not None
        assert (logs["emit"].bytes, logs["emit"].sha256) == (len(b"+ set +x\n") + count, said[0].decode())
        await proven(logs["emit"])
        self.system.journal.check(job)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("logs")
    (folder / "emit.py").write_text(EMIT)
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(private_servers(folder, roles("w1")))
        direct = servers.accounts.url("w1")
        proxy = await stack.enter_async_context(proxy_to(direct))
        services = await stack.enter_async_context(services_in(folder))
        changes = CHANGES | {"worker": CHANGES["worker"] | {"amqp_url": proxy.url(direct)}}
        system = await stack.enter_async_context(
            open_system(servers.accounts, servers.database, services, changes=changes, steady=False)
        )
        await servers.accounts.until_on_disk(JOURNAL)
        yield Scene(system, servers, proxy, folder)


@pytest.fixture
def scene(request: pytest.FixtureRequest, shared_scene: Scene) -> Scene:
    """The module's scene; its services' logs are shown if the test fails."""
    request.node.stash[STASH] = shared_scene.system.services
    return shared_scene


async def test_a_broker_that_is_away_slows_the_guest_at_the_bound_and_cuts_nothing(scene: Scene) -> None:
    count, gate = 8 * MIB, scene.system.gate()
    job = await scene.submit("held-back", 1, count, before=gate.script.removesuffix("; set -x"))
    await scene.system.journal.task_runs(job, "emit")
    with frozen(scene.servers.broker):
        gate.open()
        printed = await still(scene, "held-back")
        assert BACKLOG <= printed <= BACKLOG + SLACK
        (log,) = scene.system.services.folder.glob("spool-w1/grants/*/logs/emit")
        assert BACKLOG < log.stat().st_size <= BACKLOG + SLACK
    await scene.sealed(job, count, 60)


async def still(scene: Scene, name: str) -> int:
    """Wait until the build prints no more, and give how many bytes it has printed."""
    async with asyncio.timeout(30):
        before = -1
        while (printed := scene.printed(name)) != before or printed < BACKLOG:
            before = printed
            await asyncio.sleep(1)
    return printed


# aiormq drops the closing of a connection that was lost just then
@pytest.mark.filterwarnings("ignore:coroutine 'Connection.close' was never awaited:RuntimeWarning")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "size", [pytest.param(SMALL, id="small"), pytest.param(LARGE, id="large", marks=pytest.mark.slow)]
)
async def test_every_log_is_what_its_guest_printed_whatever_is_killed(scene: Scene, size: Size, seed: int) -> None:
    chance = random.Random(seed)
    names = [f"known-{size.builds}-{n}" for n in range(size.builds)]
    deeds = ["logsink"] * size.logsink_kills + ["broker"] * size.broker_kills + ["cut"] * size.cuts
    chance.shuffle(deeds)
    # at so many bytes printed: while they are on their way
    times = sorted(chance.uniform(0.05, 0.9) * size.builds * size.bytes for _ in deeds)

    fleet = Fleet(scene.system)
    fleet.adopt("logsink", "logsink", **CHANGES["logsink"])
    async with asyncio.TaskGroup() as group:
        with minded(fleet, group):
            jobs = [await scene.submit(name, chance.getrandbits(32), size.bytes) for name in names]
            for deed, time in zip(deeds, times, strict=True):
                await until_printed(scene, names, time)
                await do(deed, scene, fleet)
            for job in jobs:
                await scene.sealed(job, size.bytes, 600)
    assert fleet.faults() == []
    assert fleet.ends


@contextmanager
def minded(fleet: Fleet, group: asyncio.TaskGroup) -> Iterator[None]:
    """Members of the fleet come back for the length of the block."""
    minding = group.create_task(fleet.mind())
    try:
        yield
    finally:
        minding.cancel()


async def until_printed(scene: Scene, names: list[str], count: float) -> None:
    async with asyncio.timeout(600):
        while scene.printed(*names) < count:
            await asyncio.sleep(0.05)


async def do(deed: str, scene: Scene, fleet: Fleet) -> None:
    """Kill, or cut all connections of the worker."""
    if deed == "logsink":
        fleet.members["logsink"].signal(signal.SIGKILL)
    elif deed == "broker":
        await scene.servers.broker.kill()
        await bring_back(scene.servers.broker)
    else:
        scene.proxy.cut()
