"""The crash test: jobs while services, workers, the broker and PostgreSQL are killed, crashed at failpoints and frozen.

There are two of every service and four workers. What is proved comes from two records that no part of Leveret
writes: a file in which each build notes that it runs, and the events as a plain `pika` observer heard them.
`LEVERET_CHAOS_SEED` repeats a run's choice of deeds; each run prints its own.
"""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from leveret_dispatcher.failpoints import FAILPOINTS as DISPATCHER
from leveret_embedded import Broker
from leveret_embedded.database import DatabaseServer
from leveret_embedded.ports import reserved_ports
from leveret_intake.failpoints import FAILPOINTS as INTAKE
from leveret_logsink.failpoints import FAILPOINTS as LOGSINK
from leveret_notifier.failpoints import FAILPOINTS as NOTIFIER
from leveret_proto.messages import JobEvent, JobStatus
from leveret_proto.permissions import SERVICES
from leveret_proto.topology import QUEUES, RECORD
from leveret_worker.failpoints import FAILPOINTS as WORKER
from tests.support.fleet import Fleet, Member
from tests.support.journal import fetch, proven
from tests.support.plain_observer import PlainObserver
from tests.support.private_servers import PrivateServers, bring_back, frozen, private_servers
from tests.support.services import Services
from tests.support.sinks import HttpSink, http_server
from tests.support.system import JOURNAL, System, manifest, open_system, roles
from tests.support.verdict import End, judge, read_runs

WORKERS = ("w1", "w2", "w3", "w4")
OBSERVER = "test.observer"
FAILPOINTS = {
    "intake": INTAKE, "dispatcher": DISPATCHER, "logsink": LOGSINK, "notifier": NOTIFIER, "worker": WORKER,
}  # fmt: skip
#: A leader goes stale after 1.5 s (tests/support/system.py); a freeze may be shorter, longer, or outlast a lease.
LEASE = 5.0
FREEZES = (0.3, 2.5, LEASE + 1.5)
SETTLED = 90.0


@dataclass(frozen=True)
class Deed:
    """What the chaos does: at a time, in seconds from the start, to one process or server, for some seconds."""

    at: float
    what: str
    victim: str
    seconds: float = 0.0
    failpoint: str | None = None


@dataclass(frozen=True)
class Size:
    """How much of everything; `length` is the time in seconds over which deeds and submissions are spread."""

    jobs: int
    length: float
    kills: int
    crashes: int
    freezes: int
    servers: int


SMALL = Size(jobs=30, length=10, kills=4, crashes=4, freezes=4, servers=1)
LARGE = Size(jobs=200, length=180, kills=40, crashes=40, freezes=30, servers=6)


def deeds(chance: random.Random, size: Size) -> list[Deed]:
    """Choose. Every server is killed and frozen `size.servers` times."""
    victims = [f"{service}{n}" for service in SERVICES for n in ("", "-2")] + ["worker", *WORKERS[1:]]

    def at() -> float:
        return chance.uniform(0, size.length)

    chosen = [Deed(at(), "kill", chance.choice(victims), chance.uniform(0, 1)) for _ in range(size.kills)]
    for _ in range(size.crashes):
        victim = chance.choice(victims)
        point = chance.choice(FAILPOINTS.get(victim.removesuffix("-2"), WORKER))
        chosen.append(Deed(at(), "crash", victim, failpoint=f"{point}:{chance.randint(1, 3)}"))
    chosen += [Deed(at(), "freeze", chance.choice(victims), chance.choice(FREEZES)) for _ in range(size.freezes)]
    for server in ("broker", "database"):
        for _ in range(size.servers):
            chosen.append(Deed(at(), "kill", server, chance.uniform(0, 2)))
            chosen.append(Deed(at(), "freeze", server, chance.choice(FREEZES)))
    return sorted(chosen, key=lambda deed: deed.at)


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[PrivateServers]:
    async with private_servers(tmp_path, roles(*WORKERS)) as made:
        yield made


@pytest.fixture
async def system(servers: PrivateServers, services: Services) -> AsyncIterator[System]:
    changes = {"dispatcher": {"lease": LEASE}, "worker": {"beat_interval": 1}}
    async with open_system(servers.accounts, servers.database, services, changes=changes, steady=False) as system:
        yield system


@pytest.fixture
async def fleet(system: System) -> AsyncIterator[Fleet]:
    """Two of every service and four workers, which come back whatever ends them."""
    fleet = Fleet(system)
    changes: dict[str, dict[str, object]] = {"dispatcher": {"lease": LEASE}, "worker": {"beat_interval": 1}}
    with reserved_ports(1) as (port,):
        second = changes | {"logsink": {"port": port}}
        async with asyncio.TaskGroup() as starting:
            for service in SERVICES:
                fleet.adopt(service, service, **changes.get(service, {}))
                starting.create_task(fleet.add(f"{service}-2", service, **second.get(service, {})))
            fleet.adopt("worker", "worker", **changes["worker"])
            for worker in WORKERS[1:]:
                starting.create_task(fleet.add(worker, "worker", worker, **changes["worker"]))
        async with asyncio.TaskGroup() as group:
            minding = group.create_task(fleet.mind())
            yield fleet
            minding.cancel()
        await fleet.kill()  # in order they would take their time


@pytest.fixture
def observer(servers: PrivateServers, system: System) -> PlainObserver:
    """Hears `leveret.record`, where events are confirmed: a dying broker may lose the public copies."""
    observer = PlainObserver(servers.accounts.url(), OBSERVER, system.services.folder / "observed")
    observer.declare(RECORD)
    observer.start()
    return observer


@pytest.fixture
async def http() -> AsyncIterator[HttpSink]:
    async with http_server() as sink:
        yield sink


# aiormq drops the closing of a connection that was lost just then
@pytest.mark.filterwarnings("ignore:coroutine 'Connection.close' was never awaited:RuntimeWarning")
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "size", [pytest.param(SMALL, id="small"), pytest.param(LARGE, id="large", marks=pytest.mark.slow)]
)
async def test_every_job_ends_once_and_no_attempt_runs_twice_whatever_is_killed(
    servers: PrivateServers,
    system: System,
    fleet: Fleet,
    observer: PlainObserver,
    http: HttpSink,
    seed: int,
    say: Callable[[str], None],
    size: Size,
) -> None:
    await servers.accounts.until_on_disk(JOURNAL, OBSERVER)
    chance = random.Random(seed)
    plan, runs = deeds(chance, size), system.services.folder / "runs"
    spread = sorted(chance.uniform(0, size.length) for _ in range(size.jobs))
    async with asyncio.TaskGroup() as group:
        for deed in plan:
            group.create_task(do(deed, servers, fleet))
        submitting = [group.create_task(submit(system, http, runs, n, after)) for n, after in enumerate(spread)]
    jobs = [submitted.result() for submitted in submitting]
    assert len(set(jobs)) == len(jobs)

    ends = [await system.journal.ended(job, SETTLED) for job in jobs]
    for n, end in enumerate(ends):
        await whole(system, http, end, f"/chaos-{n}")
    await until_nothing_is_left(system, servers)

    told, faults = judge(observer.stop(), read_runs(runs.read_text()))
    assert faults == []
    assert sorted(told) == sorted(jobs)
    assert [end for end in told.values() if not right(end)] == []
    assert any(end.status == "success" for end in told.values())
    assert fleet.faults() == []
    crashed = sum(end.at_failpoint for end in fleet.ends)
    frozen_ones = sum(deed.what == "freeze" for deed in plan)
    say(f"{len(fleet.ends)} processes ended, {crashed} of them at failpoints; {frozen_ones} freezes")
    assert fleet.ends
    assert crashed or size is not LARGE


async def do(deed: Deed, servers: PrivateServers, fleet: Fleet) -> None:
    """Do a deed at its time, or when what was done to the same victim before is over."""
    await asyncio.sleep(deed.at)
    if deed.victim == "broker":
        await do_to_server(deed, servers.broker, servers.broker_busy)
    elif deed.victim == "database":
        await do_to_server(deed, servers.server, servers.server_busy)
    else:
        await do_to_member(deed, fleet.members[deed.victim])


async def do_to_server(deed: Deed, server: Broker | DatabaseServer, busy: asyncio.Lock) -> None:
    async with busy:
        if deed.what == "freeze":
            with frozen(server):
                await asyncio.sleep(deed.seconds)
        else:
            await server.kill()
            await asyncio.sleep(deed.seconds)
            await bring_back(server)


async def do_to_member(deed: Deed, member: Member) -> None:
    async with member.busy:
        if deed.what == "freeze":
            member.signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(deed.seconds)
            finally:
                member.signal(signal.SIGCONT)
        else:
            member.away, member.failpoint = deed.seconds, deed.failpoint
            member.signal(signal.SIGKILL)


async def submit(system: System, http: HttpSink, runs: Path, n: int, after: float) -> int:
    """Submit after some seconds, until there is an answer: the same `message_id` is the same job."""
    await asyncio.sleep(after)
    body = manifest(
        ("build", f"{note_in(runs)}; sleep 0.$((RANDOM % 9)); echo made > thing; seq 1 2000"),
        ("check", "sleep 0.$((RANDOM % 9))"),
        artifacts=["thing"],
        triggers=[{"action": "webhook", "condition": "always", "url": http.url(f"/chaos-{n}")}],
    )
    return await system.submit_through(body, f"chaos-{n}", project="chaos")


def note_in(runs: Path) -> str:
    """What a build does to note that it runs, and as what: its home is in a folder named after its grant, which the
    worker has spooled beside it."""
    return (
        'set +x; for spooled in "$HOME"/../../../grants/"$(basename "$(dirname "$HOME")")"*; do :; done; '
        """attempt=$(sed -E 's/.*"attempt":([0-9]+).*/\\1/' "$spooled/grant.json"); """
        f'echo "$JOB_ID $attempt ${{spooled##*/}} $(cat /proc/sys/kernel/random/uuid)" >> {runs}'
    )


def right(end: End) -> bool:
    """A job succeeds, unless three of its attempts were killed after they had started."""
    return end.status == "success" or (end.status == "failed" and end.reason == "lost" and end.attempt >= 3)


async def whole(system: System, http: HttpSink, end: JobEvent, path: str) -> None:
    """All that belongs to the job is there: its logs to the last byte, its artifact, its one delivery."""
    if end.status is JobStatus.SUCCESS:
        for log in (await system.journal.logs(end, SETTLED)).values():
            await proven(log)
        (artifact,) = end.artifacts
        assert artifact.url is not None
        assert await fetch(artifact.url) == b"made\n"
    (delivered,) = await system.journal.delivered(end.facts.job, limit=SETTLED)
    assert {post.delivery for post in http.posts if post.path == path} == {delivered.delivery}


async def until_nothing_is_left(system: System, servers: PrivateServers) -> None:
    """No job not ended, no event unsent, no queue but those of the topology, the observers and the live sessions."""
    ours = {queue.name for queue in QUEUES} | {JOURNAL, OBSERVER}
    outboxes = await system.rows("select table_schema from information_schema.tables where table_name = 'outbox'")
    unsent = " union all ".join(f"select count(*) from {row[0]}.outbox" for row in outboxes)
    assert outboxes
    found: dict[str, object] = {}
    try:
        async with asyncio.timeout(SETTLED):
            while True:
                found["jobs"] = [row[0] for row in await system.rows(WAITING)]
                found["unsent"] = sum(row[0] for row in await system.rows(unsent))
                queues = await servers.accounts.queues()
                sessions = {name for name in queues - ours if name.startswith("amq.gen-")}
                found["queues"] = sorted(queues - ours - sessions), len(sessions), sorted(ours - queues)
                if found == {"jobs": [], "unsent": 0, "queues": ([], len(WORKERS), [])}:
                    return
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"left after {SETTLED:g} s: {found}") from None


#: Jobs that have not ended.
WAITING = "select id from dispatch.job where status not in ('success', 'failed', 'timeout', 'cancelled')"
