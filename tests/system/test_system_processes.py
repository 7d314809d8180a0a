"""Five processes, each with the broker and its own role at the database, and with nothing else."""

import asyncio
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.processes import descendants
from tests.support.sockets import connected, listening
from tests.support.sources import docker_answers
from tests.support.system import NAMES, System, manifest

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.skipif(docker_answers(), reason="behind Docker's proxies the servers do not see a client's own port")
async def test_during_a_build_each_service_is_connected_to_the_broker_and_its_own_role_alone(system: System) -> None:
    gate = system.gate()
    job = await system.submit(manifest(("wait", gate.script)))
    await system.journal.task_runs(job, "wait")

    pids = {name: system.running[name].pid for name in NAMES}
    assert len(set(pids.values())) == 5
    broker, database = urlsplit(system.amqp_url).port or 5672, urlsplit(system.database.dsn).port or 5432
    sessions = await system.rows(
        "select usename, client_port from pg_stat_activity where datname = $1", system.database.name
    )
    role_of = {row["client_port"]: row["usename"] for row in sessions}
    for name, pid in pids.items():
        peers = connected(pid)
        assert {peer.port for peer in peers} == ({broker} if name == "worker" else {broker, database}), name
        roles = {role_of[peer.local_port] for peer in peers if peer.port == database}
        assert roles == (set() if name == "worker" else {name})
        assert listening(pid) == ({system.port} if name == "logsink" else set())
    guests = [peer for pid in descendants(pids["worker"])[1:] for peer in connected(pid)]
    assert guests == []

    gate.open()
    await system.journal.ended(job)


async def test_a_worker_works_without_asyncpg(system: System) -> None:
    """Its process has never imported it: what is not imported need not be installed."""
    loaded = {name: Path(f"/proc/{service.pid}/maps").read_text() for name, service in system.running.items()}
    assert [name for name in NAMES if "asyncpg" in loaded[name]] == [name for name in NAMES if name != "worker"]
    blocked = "import sys; sys.modules['asyncpg'] = None; import leveret_worker.main"
    imported = await asyncio.create_subprocess_exec(sys.executable, "-c", blocked)
    assert await asyncio.wait_for(imported.wait(), 60) == 0
