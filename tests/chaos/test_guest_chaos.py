"""The crash test of guests: builds in real machines while workers, QEMUs and agents are killed and channels cut.

Each job has a fate, chosen at random, that strikes its attempts at random moments; how it must end follows from the
fate. `LEVERET_CHAOS_SEED` repeats a run's choice; each run prints its own.
"""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import pytest

from leveret_proto.messages import JobEvent, JobStatus, Reason
from tests.support.databases import Database
from tests.support.fleet import Fleet, Member
from tests.support.guest_images import stored_image
from tests.support.hostile_guests import hostile_store
from tests.support.journal import proven
from tests.support.leavings import OPENED_ONCE, Holdings, groups, until_nothing_is_left
from tests.support.machines import Machine, cut_channels, machines
from tests.support.processes import alive, descendants
from tests.support.services import Services
from tests.support.system import System, manifest, open_system, roles
from tests.support.vhosts import Vhost

pytestmark = [pytest.mark.vm, pytest.mark.image("test/minimal"), pytest.mark.timeout(3600)]

IMAGE = "test/minimal"
WORKERS = ("w1", "w2")
#: Seconds for one build, whatever happens to it and however many wait before it.
SETTLED = 600.0
LEASE = 5.0
#: So much is on its way, for seconds on end, that a cut hits something.
BUILD = "set +x; for i in $(seq 10); do seq 3000; sleep 0.2; done"
#: Seconds from the start of a machine, or from one stroke of fate, to the next: no build takes less.
LONGEST_RESPITE = 2.0
OUTPUT = b"".join(b"%d\n" % number for number in range(1, 3001)) * 10
#: Process 1 of a guest takes no signal that it does not want; it dies of code that is none. It is the agent.
KILL_AGENT = r"""
sudo python3 - <<'END'
with open("/proc/1/maps") as maps, open("/proc/1/mem", "r+b", 0) as memory:
    for line in maps:
        if " r-xp " in line and "/" in line:
            begin, end = (int(word, 16) for word in line.split()[0].split("-"))
            memory.seek(begin)
            memory.write(b"\x0f\x0b" * ((end - begin) // 2))
END
sleep 1000
"""


class Fate(StrEnum):
    """What happens to a job's builds."""

    NOTHING = "nothing"
    CUT = "its channel is cut"
    QEMU = "its QEMU is killed"
    WORKER = "its worker is killed"
    AGENT = "its agent is killed"


@dataclass(frozen=True)
class Size:
    """How many jobs meet each fate."""

    fates: dict[Fate, int]

    @property
    def jobs(self) -> int:
        return sum(self.fates.values())


SMALL = Size({Fate.NOTHING: 1, Fate.CUT: 2, Fate.QEMU: 1, Fate.WORKER: 1, Fate.AGENT: 1})
LARGE = Size({Fate.NOTHING: 40, Fate.CUT: 70, Fate.QEMU: 40, Fate.WORKER: 20, Fate.AGENT: 30})


@dataclass(frozen=True)
class Job:
    """A submitted job with its fate, and what draws its random moments."""

    number: int
    fate: Fate
    chance: random.Random


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, object]:
    """What the workers are told."""
    store = hostile_store(tmp_path / "images", stored_image(IMAGE), ())
    return {
        "executor": "qemu", "images": store.root, "slots": 2, "beat_interval": 0.5, "probe_limit": 0.1,
        "boot_limit": 60, "guest_silence_limit": 20,
    }  # fmt: skip


@pytest.fixture
async def system(
    vhost: Vhost, database: Database, services: Services, settings: dict[str, object]
) -> AsyncIterator[System]:
    await vhost.provision(roles(*WORKERS))
    changes = {"dispatcher": {"lease": LEASE}, "worker": settings}
    async with open_system(vhost, database, services, changes=changes) as system:
        yield system


@pytest.fixture
async def fleet(system: System, settings: dict[str, object]) -> AsyncIterator[Fleet]:
    """The workers, which come back when they are killed."""
    fleet = Fleet(system)
    fleet.adopt("worker", "worker", **settings)
    for worker in WORKERS[1:]:
        await fleet.add(worker, "worker", worker, **settings)
    async with asyncio.TaskGroup() as group:
        minding = group.create_task(fleet.mind())
        yield fleet
        minding.cancel()


@dataclass
class Deeds:
    """Does to the builds of a fleet what their fates want, and counts it."""

    fleet: Fleet
    done: Counter[Fate] = field(default_factory=Counter)
    #: The workers that were killed, and every process that they had.
    killed: set[int] = field(default_factory=set)
    orphans: set[int] = field(default_factory=set)

    async def strike(self, job: Job) -> None:
        """Strike at random moments until cancelled; a worker is killed only once for a job."""
        while job.fate in DEEDS:
            while self._find(job.number) is None:
                await asyncio.sleep(0.05)
            await asyncio.sleep(job.chance.uniform(0, LONGEST_RESPITE))
            found = self._find(job.number)
            if found is None:
                continue
            member, machine = found
            self.done[job.fate] += DEEDS[job.fate](self, member, machine)
            if job.fate is Fate.WORKER:
                return

    def _find(self, job: int) -> tuple[Member, Machine] | None:
        """Where the job is built now."""
        for member in self.fleet.members.values():
            if member.process.running:
                for machine in machines(member.process.pid, spool_of(member)):
                    if machine.job == job:
                        return member, machine
        return None

    def _cut(self, member: Member, machine: Machine) -> int:
        return cut_channels(member.process.pid)

    def _kill_qemu(self, member: Member, machine: Machine) -> int:
        return machine.signal(signal.SIGKILL)

    def _kill_worker(self, member: Member, machine: Machine) -> int:
        self.killed.add(member.process.pid)
        self.orphans.update(descendants(member.process.pid)[1:])
        member.signal(signal.SIGKILL)
        return 1


DEEDS = {Fate.CUT: Deeds._cut, Fate.QEMU: Deeds._kill_qemu, Fate.WORKER: Deeds._kill_worker}


def spool_of(member: Member) -> Path:
    return Path(member.environment["LEVERET_WORKER_SPOOL"])


@pytest.mark.parametrize(
    "size", [pytest.param(SMALL, id="small"), pytest.param(LARGE, id="large", marks=pytest.mark.slow)]
)
async def test_builds_end_as_they_must_whatever_is_killed_or_cut(
    system: System, fleet: Fleet, seed: int, say: Callable[[str], None], size: Size
) -> None:
    before = {name: Holdings.of(member.process.pid, spool_of(member)) for name, member in fleet.members.items()}
    chance = random.Random(seed)
    fates = [fate for fate, count in size.fates.items() for _ in range(count)]
    chance.shuffle(fates)
    deeds = Deeds(fleet)
    jobs = [Job(await system.submit(body(fate)), fate, random.Random(chance.random())) for fate in fates]
    async with asyncio.TaskGroup() as group:
        struck = {job.number: group.create_task(deeds.strike(job)) for job in jobs}
        for job in jobs:
            end = await system.journal.ended(job.number, SETTLED)
            struck[job.number].cancel()
            assert right(job.fate, end), f"job {job.number}, {job.fate}: {end.status} {end.reason}: {end.detail}"
            if end.status is JobStatus.SUCCESS:
                logs = await system.journal.logs(end)
                assert (await proven(logs["build"])).endswith(OUTPUT)
            system.journal.check(job.number)
    say(", ".join(f"{fate} {count} times" for fate, count in sorted(deeds.done.items())))
    assert deeds.done.keys() == DEEDS.keys()
    assert alive(deeds.orphans) == []
    assert [group for pid in deeds.killed for group in groups(pid)] == []
    for name, member in fleet.members.items():
        await until_nothing_is_left(member.process.pid, spool_of(member), before[name], kept=OPENED_ONCE)


def body(fate: Fate) -> str:
    """What is built: something that can't end well before its fate has struck, where that is to be its end."""
    script = {Fate.QEMU: "sleep 1000", Fate.AGENT: KILL_AGENT}.get(fate, BUILD)
    return manifest(("build", script), image=IMAGE)


def right(fate: Fate, end: JobEvent) -> bool:
    """Whether a job of this fate may end so. Any may be lost whose worker was killed three times under it."""
    if (end.status, end.reason) == (JobStatus.FAILED, Reason.LOST):
        return (end.attempt or 0) >= 3
    if fate in (Fate.QEMU, Fate.AGENT):  # without its agent, which is its process 1, a guest's kernel panics
        return end.status is JobStatus.FAILED and end.reason in (Reason.MACHINE_ENDED, Reason.BOOT_FAILED)
    return end.status is JobStatus.SUCCESS
