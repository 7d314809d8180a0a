"""The monitors of five real services: what they say of a build, and of a broker that is away."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest
import pytest_asyncio

from tests.support.databases import Database, new_database
from tests.support.monitors import Monitor, Page, monitor_of
from tests.support.proxy import proxy_to
from tests.support.services import STASH, Services, services_in
from tests.support.system import IMAGE, NAMES, System, manifest, open_system, roles
from tests.support.vhosts import TestBroker, Vhost, new_vhost

LIMIT = 20.0


@dataclass(frozen=True)
class Watched:
    """A system and the monitors of its services."""

    system: System
    monitors: dict[str, Monitor]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(
    broker: TestBroker, database_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Watched]:
    async with (
        new_vhost(broker) as vhost,
        new_database(database_server) as database,
        services_in(tmp_path_factory.mktemp("monitored")) as services,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LIMIT)) as session,
    ):
        await vhost.provision(roles("w1"))
        changes = {name: {"monitor_port": 0} for name in NAMES}
        async with open_system(vhost, database, services, changes=changes) as system:
            yield Watched(system, {name: monitor_of(system.running[name], session) for name in NAMES})


@pytest.fixture
def watched(request: pytest.FixtureRequest, shared: Watched) -> Watched:
    request.node.stash[STASH] = shared.system.services
    return shared


@pytest.mark.asyncio(loop_scope="module")
async def test_services_that_are_ready_live_and_say_what_they_do(watched: Watched) -> None:
    said = {name: await monitor.until_ready() for name, monitor in watched.monitors.items()}
    assert said["intake"] == "taking submissions\n"
    assert said["dispatcher"].startswith("leading, epoch 1; ")
    assert said["worker"] == "0 of 2 slots in use\n"
    for monitor in watched.monitors.values():
        assert await monitor.get("/live") == (200, "live\n")
        assert (await monitor.page()).value("leveret_ready") == 1


@pytest.mark.asyncio(loop_scope="module")
async def test_a_build_shows_in_the_metrics_of_every_service_it_passes(watched: Watched) -> None:
    job = await watched.system.submit(manifest(("say", "echo hello")))
    journal = watched.system.journal
    assert (await journal.logs(await journal.ended(job)))["say"].status == "sealed"

    async def shows(name: str, metric: str, **labels: str) -> Page:
        """What is counted after the last event may come a moment later."""
        async with asyncio.timeout(LIMIT):
            while not (page := await watched.monitors[name].page()).value(metric, **labels):
                await asyncio.sleep(0.02)
        return page

    await shows("intake", "leveret_intake_submissions_total", outcome="accepted")
    page = await shows("dispatcher", "leveret_dispatcher_jobs_ended_total", status="success", reason="completed")
    assert page.value("leveret_dispatcher_grant_seconds_count") >= 1
    assert page.has("leveret_outbox_oldest_seconds")
    page = await shows("worker", "leveret_worker_settle_seconds_count", image=IMAGE)
    assert page.value("leveret_worker_boot_seconds_count", image=IMAGE, how="process") >= 1
    assert page.value("leveret_worker_builds_ended_total", result="success", reason="completed") >= 1
    assert page.value("leveret_worker_sent_bytes_total", kind="log") > 0
    assert page.value("leveret_worker_slots") == page.value("leveret_worker_free_slots") == 2
    assert page.value("leveret_worker_unconfirmed_bytes") == 0
    page = await shows("logsink", "leveret_logsink_streams_settled_total", kind="log", state="sealed")
    assert page.value("leveret_logsink_stored_bytes_total", kind="log") > 0
    assert page.value("leveret_logsink_storage_open") == 1
    assert page.value("leveret_logsink_storage_free_bytes") > page.value("leveret_logsink_storage_floor_bytes") > 0
    page = await watched.monitors["notifier"].page()
    assert page.has("leveret_notifier_waiting_deliveries")
    assert page.has("leveret_outbox_messages")


async def test_without_the_broker_a_service_lives_is_not_ready_and_says_why(
    vhost: Vhost, database: Database, services: Services
) -> None:
    await vhost.provision({})
    async with (
        proxy_to(vhost.url("intake")) as proxy,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LIMIT)) as session,
    ):
        environment = {
            "LEVERET_INTAKE_AMQP_URL": proxy.url(vhost.url("intake")),
            "LEVERET_INTAKE_DATABASE_URL": database.dsn_for("intake"),
            "LEVERET_INTAKE_MONITOR_PORT": "0",
        }
        intake = await services.start("leveret_intake.main", environment)
        monitor = monitor_of(intake, session)
        await monitor.until_ready()
        with proxy.silent():
            proxy.cut()
            assert "waiting for RabbitMQ" in await monitor.until_ready(503)
            assert (await monitor.get("/live"))[0] == 200
            page = await monitor.page()
            assert page.value("leveret_outages_total", what="broker") >= 1
            assert page.value("leveret_ready") == 0
        assert await monitor.until_ready() == "taking submissions\n"


async def test_a_monitor_that_cannot_listen_is_told_and_ends_the_service(
    vhost: Vhost, database: Database, services: Services
) -> None:
    held = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with held:
        port = held.sockets[0].getsockname()[1]
        environment = {
            "LEVERET_INTAKE_AMQP_URL": vhost.url("intake"),
            "LEVERET_INTAKE_DATABASE_URL": database.dsn_for("intake"),
            "LEVERET_INTAKE_MONITOR_PORT": str(port),
        }
        intake = await services.start("leveret_intake.main", environment, ready=False)
        assert await intake.wait() == 1
    assert f"leveret-intake: monitor_port: can't listen on 127.0.0.1 port {port}" in intake.log.read_text()
