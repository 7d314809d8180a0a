"""A subscriber that is killed again and again, while services and broker are too, hears every event once, in order."""

import asyncio
import random
import secrets
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from tests.support.private_servers import PrivateServers, bring_back, private_servers
from tests.support.services import Services
from tests.support.system import JOURNAL, OWNER, WORKER, System, manifest, open_system, roles
from tests.support.transactional_subscriber import Ledger

REPOSITORY = Path(__file__).parents[2]
JOBS = 12
ENOUGH_KILLS = 5
#: Seconds within which the subscriber must have heard what everybody knows.
CAUGHT_UP = 60.0


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[PrivateServers]:
    async with private_servers(tmp_path, roles(WORKER)) as made:
        yield made


class Subscriber:
    """The subscriber's process, and its ledger."""

    def __init__(self, url: str, path: Path) -> None:
        self._argv = [sys.executable, "-m", "tests.support.transactional_subscriber", url, OWNER, str(path)]
        self.ledger = Ledger(path)
        self.kills = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(*self._argv, cwd=REPOSITORY, stderr=subprocess.PIPE)
        try:
            yield process
        finally:
            assert process.returncode is None, (await process.communicate())[1]
            process.send_signal(signal.SIGKILL)
            await process.communicate()

    async def killed_again_and_again(self, chance: random.Random, done: Callable[[], bool]) -> None:
        """Each life lasts until some further events were heard, and a moment longer."""
        while not done():
            async with self.running():
                enough = len(self.ledger.heard()) + chance.randint(1, 12)
                while len(self.ledger.heard()) < enough and not done():
                    await asyncio.sleep(0.01)  # a file tells nobody that it has grown
                await asyncio.sleep(chance.uniform(0, 0.05))
            self.kills += 1


def told(system: System) -> set[tuple[int, str, int]]:
    """Every event that the journal has heard."""
    return {
        (job, source, seq)
        for job, sources in system.journal.told.items()
        for source, numbered in sources.items()
        for seq in numbered
    }


async def submit(system: System, job: int) -> int:
    """Submit, through an outage if need be, once."""
    text = manifest(("a", "echo a"), ("b", "exit 1" if job % 3 == 0 else "true"))
    return await system.submit_through(text, f"replayed-{job}")


@pytest.mark.timeout(300)
async def test_a_subscriber_killed_at_random_hears_each_event_once_and_in_order(
    servers: PrivateServers, services: Services, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = secrets.randbelow(2**32)
    with capsys.disabled():
        sys.stdout.write(f" seed {seed} ")
    chance = random.Random(seed)
    async with open_system(servers.accounts, servers.database, services, steady=False) as system:
        await servers.accounts.until_on_disk(JOURNAL)
        subscriber = Subscriber(system.amqp_url, tmp_path / "ledger.sqlite")
        ended = asyncio.Event()

        def done() -> bool:
            return ended.is_set() and told(system) <= set(subscriber.ledger.heard())

        async with asyncio.TaskGroup() as group:
            killing = group.create_task(subscriber.killed_again_and_again(chance, done))
            jobs = [await submit(system, n) for n in range(JOBS // 3)]
            await servers.broker.kill()
            await bring_back(servers.broker)
            jobs += [await submit(system, n) for n in range(JOBS // 3, 2 * JOBS // 3)]
            await system.running["logsink"].kill()
            jobs += [await submit(system, n) for n in range(2 * JOBS // 3, JOBS)]
            await system.start("logsink")
            for job in jobs:
                await system.journal.logs(await system.journal.ended(job))
            while subscriber.kills < ENOUGH_KILLS:  # it was fast, or chance gave it long lives
                jobs.append(await submit(system, len(jobs)))
                await system.journal.logs(await system.journal.ended(jobs[-1]))
            ended.set()
            async with asyncio.timeout(CAUGHT_UP):
                await killing
        for job in jobs:
            system.journal.check(job)
    seqs: dict[tuple[int, str], list[int]] = defaultdict(list)
    with closing(subscriber.ledger) as ledger:
        for job, source, seq in ledger.heard():
            seqs[job, source].append(seq)
    assert {job for job, _ in seqs} == set(jobs)
    for numbered in seqs.values():
        assert numbered == list(range(1, len(numbered) + 1))
