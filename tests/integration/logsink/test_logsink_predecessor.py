"""A logsink that is frozen at the worst moment and goes on when another one has long done its work."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from leveret_proto.links import artifact_path, log_path
from tests.integration.logsink.stage import LIMIT, LINK, Stage, facts, pieces
from tests.support.proxy import Proxy, proxy_to
from tests.support.services import Service

BODY = b"".join(b"line %d of a log that two logsinks are at\n" % number for number in range(20_000))


@pytest.fixture
async def proxy(stage: Stage) -> AsyncIterator[Proxy]:
    """The frozen one's way to the broker: cut, so that nobody waits for heartbeats."""
    async with proxy_to(stage.vhost.url("logsink")) as made:
        yield made


async def until_frozen(sink: Service) -> None:
    async with asyncio.timeout(LIMIT):
        while "State:\tT" not in Path(f"/proc/{sink.pid}/status").read_text():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "point",
    [
        "logsink.log.before-commit:3",
        pytest.param("logsink.artifact.before-commit:2", marks=pytest.mark.slow),
        pytest.param("logsink.compress.before-rename:1", marks=pytest.mark.slow),
    ],
)
async def test_a_frozen_predecessor_damages_nothing_when_it_goes_on(stage: Stage, proxy: Proxy, point: str) -> None:
    late = await stage.logsink(failpoint=f"{point}:STOP", amqp_url=proxy.url(stage.vhost.url("logsink")))
    await stage.dispatcher.started(facts(18), 1, "w1")
    await stage.w1.artifact(18, 1, 0, "out", pieces(BODY, 20_000), BODY)
    await stage.w1.log(18, 1, "build", BODY, size=10_000)
    await until_frozen(late)
    try:
        # what the broker and the database do by themselves within half a minute
        proxy.cut()
        await stage.until(
            """
            select count(pg_terminate_backend(pid)) > 0 from pg_stat_activity
            where usename = 'logsink' and datname = current_database()
            """
        )
        quick = await stage.logsink()
        await stage.until("select count(*) = 2 and bool_and(state = 'sealed') from stream")
        # were it claimed by the frozen one, it would come up again in time
        await stage.until(
            "with due as (update stream set compress_at = now() where compress_at > now() returning 1) select true"
        )
        await stage.until("select bool_and(compress_at is null) from stream")
    finally:
        os.kill(late.pid, signal.SIGCONT)
    # the one that was frozen comes back, and does its part when the other one is gone
    await quick.kill()
    await stage.w1.log(18, 1, "after", BODY, size=50_000)
    await stage.until("select count(*) = 3 and bool_and(state = 'sealed' and compress_at is null) from stream")
    for path in (log_path(18, LINK, 1, "build"), artifact_path(18, LINK, 1, 0, "out"), log_path(18, LINK, 1, "after")):
        assert (await stage.get(stage.url(late) + path))[::2] == (200, BODY)
    names = {path.name for path in stage.storage.rglob("*") if path.is_file()}
    assert names == {"build.log.zst", "after.log.zst", "0"}
    assert stage.dead.empty()


@pytest.mark.slow
async def test_a_frozen_predecessor_is_given_up_by_broker_and_database(stage: Stage) -> None:
    """Nobody helps: heartbeats stay away, and a transaction that idles is ended, within half a minute or so each."""
    late = await stage.logsink(failpoint="logsink.log.before-commit:3:STOP")
    await stage.dispatcher.started(facts(18), 1, "w1")
    await stage.w1.log(18, 1, "build", BODY, size=10_000)
    await until_frozen(late)
    try:
        await stage.logsink()
        for _ in range(5):
            with contextlib.suppress(TimeoutError):
                await stage.until("select bool_and(state = 'sealed' and compress_at is null) from stream")
                break
    finally:
        os.kill(late.pid, signal.SIGCONT)
    async with asyncio.timeout(LIMIT):
        while '"waiting"' not in late.log.read_text():  # it has noticed
            await asyncio.sleep(0.05)
    assert (await stage.get(stage.url(late) + log_path(18, LINK, 1, "build")))[::2] == (200, BODY)
    assert {path.name for path in stage.storage.rglob("*") if path.is_file()} == {"build.log.zst"}
    assert stage.dead.empty()
