"""The monitor: metrics and probes over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from prometheus_client.metrics_core import Metric

from leveret_runtime import metrics
from leveret_runtime.away import DatabaseAway
from leveret_runtime.health import Health
from leveret_runtime.metrics import gauge, sampled
from leveret_runtime.monitor import monitoring
from tests.support.monitors import Monitor, own_page


@asynccontextmanager
async def watched(health: Health) -> AsyncIterator[Monitor]:
    async with (
        monitoring("test", health, "127.0.0.1", 0) as url,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
    ):
        yield Monitor(url, session)


async def apples() -> list[Metric]:
    return [gauge("test_apples", "Apples.", 3)]


async def away() -> list[Metric]:
    raise DatabaseAway("PostgreSQL: gone")


async def asleep() -> list[Metric]:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def broken() -> list[Metric]:
    raise LookupError("a bug")


async def test_the_probes_answer_as_the_process_fares() -> None:
    health = Health()
    async with watched(health) as monitor:
        assert await monitor.get("/live") == (200, "live\n")
        assert await monitor.get("/ready") == (503, "starting\n")
        health.serving(lambda: "taking submissions")
        assert await monitor.get("/ready") == (200, "taking submissions\n")
        with health.part() as part:
            health.away(part, "broker", "RabbitMQ: gone")
            assert await monitor.get("/ready") == (503, "waiting for RabbitMQ: gone\n")
            assert await monitor.get("/live") == (200, "live\n")


async def test_metrics_tell_of_the_process_its_version_and_its_outages() -> None:
    async with watched(Health()) as monitor:
        page = await monitor.page()
    assert page.value("leveret_build_info") == 1
    assert page.value("process_resident_memory_bytes") > 1_000_000
    assert page.has("leveret_ready")
    assert page.has("leveret_outages_total", what="broker")
    assert page.has("leveret_outages_total", what="database")


async def test_whoever_asks_for_open_metrics_is_given_them() -> None:
    async with watched(Health()) as monitor:
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        async with monitor.session.get(monitor.url + "/metrics", headers=accept) as answer:
            assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
            assert (await answer.text()).endswith("# EOF\n")


async def test_a_sampler_is_asked_at_each_look_while_it_lasts() -> None:
    with sampled(apples):
        assert (await own_page()).value("test_apples") == 3
    assert not (await own_page()).has("test_apples")


@pytest.mark.parametrize("sampler", [away, asleep])
async def test_a_sampler_that_gives_nothing_costs_its_own_values_alone(
    sampler: metrics.Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "SAMPLE_LIMIT", 0.05)
    before = (await own_page()).value("leveret_samples_failed_total")
    with sampled(sampler), sampled(apples):
        await own_page()
        page = await own_page()
    assert page.value("test_apples") == 3
    assert page.value("leveret_samples_failed_total") >= before + 1


async def test_a_fault_of_ours_is_no_page(caplog: pytest.LogCaptureFixture) -> None:
    async with watched(Health()) as monitor:
        with sampled(broken):
            assert (await monitor.get("/metrics"))[0] == 500
        assert "a bug" in caplog.text
        assert (await monitor.get("/metrics"))[0] == 200


async def test_many_who_look_cost_no_more_than_one_at_a_time() -> None:
    looking, most = 0, 0

    async def slow() -> list[Metric]:
        nonlocal looking, most
        looking += 1
        most = max(most, looking)
        await asyncio.sleep(0)
        looking -= 1
        return []

    async with watched(Health()) as monitor:
        with sampled(slow):
            await asyncio.gather(*(monitor.page() for _ in range(5)))
    assert most == 1


async def test_nothing_else_is_served_and_nothing_is_taken() -> None:
    async with watched(Health()) as monitor:
        assert (await monitor.get("/"))[0] == 404
        async with monitor.session.post(monitor.url + "/ready") as answer:
            assert answer.status == 405


async def test_what_is_no_http_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    async with watched(Health()) as monitor:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(monitor.url.rpartition(":")[2]))
        writer.write(b"\x16\x03\x01 nonsense\r\n\r\n")
        async with asyncio.timeout(10):
            assert b"400" in await reader.readline()
        writer.close()
        await writer.wait_closed()
        assert await monitor.get("/live") == (200, "live\n")
    assert "nonsense" not in caplog.text


async def test_an_address_that_is_taken_is_told() -> None:
    async with watched(Health()) as monitor:
        port = int(monitor.url.rpartition(":")[2])
        with pytest.raises(SystemExit, match=rf"leveret-test: monitor_port: can't listen on 127.0.0.1 port {port}"):
            async with monitoring("test", Health(), "127.0.0.1", port):
                raise AssertionError("unreachable")
