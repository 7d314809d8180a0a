"""A worker sends parts of its logs again when logsink asks, while it has them; the test plays logsink."""

import asyncio
import platform
from pathlib import Path

from leveret_proto.messages import Abandon, Grant, MissingRange, Resend, Settle, WorkerBeat
from tests.support.dispatcher_played import DispatcherPlayed, StartWorker, make_grant

ARCH = platform.machine()
LINES = "image: test/process\ntasks:\n- one: |\n    set +x; seq 1 40000\n"
WHOLE = "".join(f"{number}\n" for number in range(1, 40001)).encode()
ALL = (MissingRange(start=0),)


async def built(dispatcher: DispatcherPlayed, beat: WorkerBeat, *, attempt: int = 1) -> tuple[Grant, bytes]:
    """Have LINES built; give the grant and the log."""
    grant = make_grant(beat, LINES, attempt=attempt)
    await dispatcher.grant(grant, ARCH)
    assert (await dispatcher.status("ended")).result == "success"
    log = await dispatcher.log("one")
    assert log.endswith(WHOLE)
    return grant, log


async def settled(dispatcher: DispatcherPlayed, beat: WorkerBeat, grant: Grant) -> None:
    await dispatcher.order(beat, Settle(grants=(grant.grant,)))
    await dispatcher.beat(held=())


async def test_a_log_is_sent_again_before_and_after_it_is_settled_and_by_the_next_process(
    dispatcher: DispatcherPlayed, start_worker: StartWorker
) -> None:
    worker = await start_worker()
    beat = await dispatcher.beat(beat=1)
    grant, log = await built(dispatcher, beat)
    wanted = Resend(job=7, attempt=1, task="one", missing=ALL)
    await dispatcher.ask_again("w1", wanted)
    assert await dispatcher.log("one") == log
    await settled(dispatcher, beat, grant)
    await dispatcher.ask_again("w1", wanted)
    assert await dispatcher.log("one") == log

    await worker.kill()
    await start_worker()
    again = await dispatcher.beat(beat=1)
    assert again.held == ()  # a settled grant is told no more
    await dispatcher.ask_again("w1", wanted)
    assert await dispatcher.log("one") == log


async def test_only_what_is_missing_is_sent_and_nothing_for_what_is_not_here(
    dispatcher: DispatcherPlayed, start_worker: StartWorker
) -> None:
    """Nothing beyond a log's end, nothing of a job, attempt or task that is not here, and no other file."""
    await start_worker()
    beat = await dispatcher.beat(beat=1)
    _, log = await built(dispatcher, beat)
    for job, attempt, task in (
        (8, 1, "one"),
        (7, 2, "one"),
        (7, 1, "two"),
        (7, 1, "../../grant.json"),
        (7, 1, "/etc/passwd"),
    ):
        await dispatcher.ask_again("w1", Resend(job=job, attempt=attempt, task=task, missing=ALL))
    holes = (MissingRange(start=100, end=90), MissingRange(start=200, end=300), MissingRange(start=2**62))
    await dispatcher.ask_again("w1", Resend(job=7, attempt=1, task="one", missing=holes))
    async with asyncio.timeout(20):
        while "one" not in dispatcher.ends:
            dispatcher.logged.clear()
            await dispatcher.logged.wait()
    assert dispatcher.ends["one"].total == len(log)
    assert dispatcher.logs.keys() == {"one"}
    sent = bytes(dispatcher.logs["one"])
    assert sent[200:300] == log[200:300]
    assert sent.rstrip(b"\0") == bytes(200) + log[200:300]


async def test_attempts_never_mix(dispatcher: DispatcherPlayed, start_worker: StartWorker) -> None:
    await start_worker()
    beat = await dispatcher.beat(beat=1)
    first, first_log = await built(dispatcher, beat)
    await settled(dispatcher, beat, first)
    beat = await dispatcher.beat()
    while first.token in beat.tokens or not beat.tokens:
        beat = await dispatcher.beat()
    dispatcher.logs.clear()
    dispatcher.ends.clear()
    _, second_log = await built(dispatcher, beat, attempt=2)
    for attempt, log in ((1, first_log), (2, second_log)):
        await dispatcher.ask_again("w1", Resend(job=7, attempt=attempt, task="@setup", missing=ALL))
        assert f"attempt {attempt}:".encode() in await dispatcher.log("@setup")
        assert log.endswith(WHOLE)


async def test_what_is_void_or_too_old_is_not_kept(
    dispatcher: DispatcherPlayed, start_worker: StartWorker, spool: Path
) -> None:
    await start_worker(LEVERET_WORKER_KEPT_LOGS_SECONDS="0", LEVERET_WORKER_KEPT_LOGS_MIB="0")
    beat = await dispatcher.beat(beat=1)
    grant, _ = await built(dispatcher, beat)
    await settled(dispatcher, beat, grant)
    assert list(spool.glob("kept/*")) == list(spool.glob("grants/*")) == []
    while grant.token in beat.tokens or not beat.tokens:
        beat = await dispatcher.beat()
    void = make_grant(beat, "image: test/process\ntasks:\n- wait: echo waiting; sleep 1000\n")
    await dispatcher.grant(void, ARCH)
    await dispatcher.log_shows("wait", b"waiting")
    await dispatcher.order(beat, Abandon(grant=void.grant))
    await dispatcher.beat(held=())
    assert list(spool.glob("kept/*")) == list(spool.glob("grants/*")) == []
