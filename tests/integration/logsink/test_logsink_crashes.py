"""Crashes at every failpoint, and the loss of one of two logsinks: all is sealed, and each log said so once."""

import asyncio

from leveret_logsink.failpoints import FAILPOINTS
from leveret_proto.links import artifact_path, log_path
from leveret_proto.messages import SETUP_LOG, CommandFailed, LogHistory
from tests.integration.logsink.stage import LIMIT, LINK, Stage, facts, pieces, sha256

BODY = bytes(range(256)) * 300


async def test_a_crash_at_any_failpoint_loses_and_repeats_nothing(stage: Stage) -> None:
    """Each logsink dies at one failpoint of its own; the next one inherits the wreck and dies at the next."""
    for number, failpoint in enumerate(FAILPOINTS):
        job = facts(100 + number)
        sink = await stage.logsink(failpoint=failpoint, ready=False, end_wait="0.1")
        await stage.dispatcher.started(job, 1, "w1")
        await stage.w1.log(job.job, 1, "build", BODY, size=20_000)
        await stage.w1.artifact(job.job, 1, 0, "out", pieces(BODY, 20_000), BODY)
        # the setup's log never comes
        await stage.dispatcher.ended(job, 1, "w1", "build")
        await sink.until_crashed()
    sink = await stage.logsink(end_wait="0.1")

    said: dict[int, dict[int, tuple[str, str]]] = {100 + number: {} for number in range(len(FAILPOINTS))}
    while not all({("build", "sealed"), (SETUP_LOG, "gap")} <= {*events.values()} for events in said.values()):
        event = await stage.events.log_event()
        told = said[event.facts.job].setdefault(event.seq, (event.task, event.status))
        assert told == (event.task, event.status), "an event may leave twice, but with the same number"
        assert event.sha256 in (None, sha256(BODY))
    for number, failpoint in enumerate(FAILPOINTS):
        job_id, events = 100 + number, list(said[100 + number].values())
        assert sorted(said[job_id]) == list(range(1, len(events) + 1)), failpoint
        # a log whose last chunks were slower than `end_wait` has been given up before it was sealed: once
        assert sorted(set(events)) == sorted(events), failpoint
        assert set(events) - {("build", "gap")} == {("build", "sealed"), (SETUP_LOG, "gap")}, failpoint
        found = await stage.get(stage.url(sink) + log_path(job_id, LINK, 1, "build"))
        assert found[::2] == (200, BODY), failpoint
        await stage.until(
            "select state = 'sealed' from stream where job = $1 and kind = 'artifact' and label = '0'", job_id
        )
        found = await stage.get(stage.url(sink) + artifact_path(job_id, LINK, 1, 0, "out"))
        assert found[::2] == (200, BODY), failpoint
    assert await stage.until("select count(*) = 0 from outbox")


async def test_two_logsinks_one_killed(stage: Stage) -> None:
    """They share storage and database; the second takes over the first's partitions in the middle of its logs."""
    first = await stage.logsink()
    second = await stage.logsink()
    jobs = [facts(number) for number in range(32, 48)]
    parts = pieces(BODY, 8_000)
    for job in jobs:
        await stage.dispatcher.started(job, 1, "w1")
    for number, (offset, part) in enumerate(parts):
        for job in jobs:
            await stage.w1.chunk(job.job, 1, "build", offset, part)
        if number == len(parts) // 2:
            await first.kill()
    for job in jobs:
        await stage.w1.chunk(job.job, 1, "build", len(BODY), b"", whole=BODY)
    events = await stage.events.log_events(len(jobs))
    assert {(event.facts.job, event.seq, event.status) for event in events} == {(job.job, 1, "sealed") for job in jobs}
    for job in jobs:
        found = await stage.get(stage.url(second) + log_path(job.job, LINK, 1, "build"))
        assert found[2] == BODY
    await second.terminate()
    assert second.log.read_text().splitlines()[-1].find('"stopped"') > 0


async def test_lost_database_connections_lose_nothing(stage: Stage) -> None:
    sink = await stage.logsink()
    await stage.dispatcher.started(facts(11), 1, "w1")
    for number, (offset, part) in enumerate(pieces(BODY, 4_000)):
        await stage.w1.chunk(11, 1, "build", offset, part)
        if number in (3, 10):
            assert await stage.until(
                """
                select count(pg_terminate_backend(pid)) > 0 from pg_stat_activity
                where usename = 'logsink' and datname = current_database()
                """
            )
    await stage.w1.chunk(11, 1, "build", len(BODY), b"", whole=BODY)
    event = await stage.events.log_event()
    assert (event.status, event.seq, event.sha256) == ("sealed", 1, sha256(BODY))
    assert (await stage.get(stage.url(sink) + log_path(11, LINK, 1, "build")))[2] == BODY


async def test_storage_that_fails_is_back_pressure(stage: Stage) -> None:
    """Nothing is acked that could not be stored; once the storage is back, all is there."""
    sink = await stage.logsink()
    stage.storage.mkdir(exist_ok=True)
    obstacle = stage.storage / "0"
    obstacle.write_text("a file where a folder belongs")
    await stage.dispatcher.started(facts(11), 1, "w1")
    await stage.w1.log(11, 1, "build", BODY, size=10_000)
    async with asyncio.timeout(LIMIT):
        while '"waits_for": "storage' not in sink.log.read_text():
            await asyncio.sleep(0.05)
    obstacle.unlink()
    event = await stage.events.log_event()
    assert (event.status, event.seq, event.sha256) == ("sealed", 1, sha256(BODY))


async def test_a_taken_port_is_said_plainly(stage: Stage) -> None:
    first = await stage.logsink()
    port = stage.url(first).rpartition(":")[2]
    second = await stage.logsink(ready=False, port=port)
    assert await second.wait() == 1
    assert f"can't listen on 127.0.0.1 port {port}" in second.log.read_text().splitlines()[-1]


async def test_a_file_that_is_out_of_order_harms_nothing_else(stage: Stage) -> None:
    """It can be neither read nor written; other partitions, readers and the session go on. Mended, it is sealed."""
    sink = await stage.logsink()
    bad, good = facts(16), facts(17)
    await stage.dispatcher.started(bad, 1, "w1")
    await stage.w1.chunk(16, 1, "build", 0, BODY[:20_000])
    await stage.until("select tailed = 20000 from stream")
    file = stage.storage / "0/16/1/w1/build.log"
    file.rename(stage.storage / "kept")
    file.mkdir()
    for offset, part in pieces(BODY[20_000:], 20_000):
        await stage.w1.chunk(16, 1, "build", 20_000 + offset, part)
    await stage.w1.chunk(16, 1, "build", len(BODY), b"", whole=BODY)
    await stage.dispatcher.started(good, 1, "w1")
    await stage.w1.log(17, 1, "build", BODY, size=20_000)
    event = await stage.events.log_event()
    assert (event.facts.job, event.status) == (17, "sealed")
    reply = await stage.command("history.alice", LogHistory(job=16, task="build"))
    assert CommandFailed.model_validate_json(reply.body).code == "unavailable"
    assert (await stage.get(stage.url(sink) + log_path(17, LINK, 1, "build")))[2] == BODY

    file.rmdir()
    (stage.storage / "kept").rename(file)
    event = await stage.events.log_event()
    assert (event.facts.job, event.status, event.sha256) == (16, "sealed", sha256(BODY))
    assert sink.log.read_text().count('"ready"') == 1
    assert stage.dead.empty()
