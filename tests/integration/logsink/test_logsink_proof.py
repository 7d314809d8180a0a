"""Logs are sealed when they are proven whole, given up when they can't be, and never mixed."""

import random

from leveret_proto import keys
from leveret_proto.links import artifact_path, log_path
from leveret_proto.messages import SETUP_LOG, JobStatus, LogEvent, MissingRange, Reason
from tests.integration.logsink.stage import LINK, Stage, facts, pieces, sha256

BODY = b"".join(b"line %d of a log that is proven whole\n" % number for number in range(20_000))


def said(events: list[LogEvent]) -> dict[str, str]:
    return {event.task: event.status for event in events}


async def test_shuffled_and_repeated_chunks_are_sealed(stage: Stage) -> None:
    """The events come after the chunks: neither waits for the other."""
    sink = await stage.logsink()
    job = facts(18)
    order = [*pieces(BODY, 40_000), *pieces(BODY, 30_000)]
    random.Random(1).shuffle(order)
    await stage.w1.chunk(18, 1, "build", len(BODY), b"", whole=BODY)
    for offset, part in order:
        await stage.w1.chunk(18, 1, "build", offset, part)
    await stage.until("select contiguous = total from stream where job = 18")
    assert (await stage.get(stage.url(sink) + log_path(18, LINK, 1, "build")))[0] == 404
    await stage.dispatcher.started(job, 1, "w1")

    event = await stage.events.log_event()
    assert (event.status, event.task, event.attempt, event.seq) == ("sealed", "build", 1, 1)
    assert (event.bytes, event.lines, event.sha256) == (len(BODY), 20_000, sha256(BODY))
    assert event.url == "https://logs.example.org" + log_path(18, LINK, 1, "build")
    assert event.facts == job
    status, headers, body = await stage.get(stage.url(sink) + log_path(18, LINK, 1, "build"))
    assert (status, headers["Leveret-Log"], headers["ETag"]) == (200, "sealed", f'"{sha256(BODY)}"')
    assert body == BODY

    # what comes again, or comes otherwise, changes nothing
    await stage.w1.chunk(18, 1, "build", 0, b"LINE")
    await stage.w1.chunk(18, 1, "empty", 0, b"", whole=b"")
    event = await stage.events.log_event()
    assert (event.task, event.status, event.bytes, event.lines, event.seq) == ("empty", "sealed", 0, 0, 2)
    assert (await stage.get(stage.url(sink) + log_path(18, LINK, 1, "build")))[2] == BODY


async def test_attempts_and_workers_never_mix(stage: Stage) -> None:
    """Two attempts and a rogue worker all send the same task's log of the same job at the same time."""
    sink = await stage.logsink()
    job = facts(5)
    first, second, rogue = (bytes([letter]) * 5_000 for letter in b"12r")
    for offset in range(0, 5_000, 500):
        for worker, attempt, body in ((stage.w2, 1, rogue), (stage.w1, 1, first), (stage.w2, 2, second)):
            await worker.chunk(5, attempt, "build", offset, body[offset : offset + 500])
    await stage.w2.log(5, 1, "invented", rogue)
    await stage.dispatcher.started(job, 1, "w1")
    await stage.dispatcher.tell(job, JobStatus.PENDING, Reason.LOST, attempt=1, worker="w1")
    await stage.dispatcher.started(job, 2, "w2")
    await stage.w2.chunk(5, 1, "build", 5_000, b"", whole=rogue)
    await stage.w2.chunk(5, 2, "build", 5_000, b"", whole=second)
    await stage.w1.chunk(5, 1, "build", 5_000, b"", whole=first)

    events = await stage.events.log_events(2)
    assert {(event.attempt, event.sha256) for event in events} == {(1, sha256(first)), (2, sha256(second))}
    assert [event.seq for event in events] == [1, 2]
    for attempt, body in ((1, first), (2, second)):
        assert (await stage.get(stage.url(sink) + log_path(5, LINK, attempt, "build")))[2] == body
    # the rogue's logs are complete as well, and stay unspoken of
    assert (await stage.get(stage.url(sink) + log_path(5, LINK, 1, "invented")))[0] == 404
    assert await stage.until(
        "select count(*) = 2 from stream where worker = 'w2' and attempt = 1 and contiguous = total and state = 'open'"
    )


async def test_what_does_not_come_is_a_gap_and_may_still_be_sealed(stage: Stage) -> None:
    await stage.logsink(end_wait="0.5")
    job = facts(7)
    await stage.dispatcher.started(job, 1, "w1")
    await stage.w1.log(7, 1, SETUP_LOG, b"set up\n")
    assert said([await stage.events.log_event()]) == {SETUP_LOG: "sealed"}
    await stage.w1.chunk(7, 1, "endless", 0, b"0123456789")
    await stage.w1.chunk(7, 1, "holed", 0, b"01")
    await stage.w1.chunk(7, 1, "holed", 6, b"6789", whole=b"0123456789")
    await stage.until("select count(*) = 3 from stream where contiguous > 0")
    await stage.dispatcher.ended(job, 1, "w1", "endless", "holed", "silent", skipped=("never",))

    gaps = {event.task: event for event in await stage.events.log_events(3)}
    assert said(list(gaps.values())) == {"endless": "gap", "holed": "gap", "silent": "gap"}
    assert gaps["endless"].missing == (MissingRange(start=10),)
    assert gaps["holed"].missing == (MissingRange(start=2, end=6),)
    assert gaps["silent"].missing == (MissingRange(start=0),)
    assert {gap.seq for gap in gaps.values()} == {2, 3, 4}
    assert all(gap.detail and gap.sha256 is None for gap in gaps.values())

    await stage.w1.chunk(7, 1, "holed", 2, b"2345")
    event = await stage.events.log_event()
    assert (event.task, event.status, event.seq, event.sha256) == ("holed", "sealed", 5, sha256(b"0123456789"))
    # a log that begins when all has been judged is judged too
    await stage.w1.chunk(7, 1, "late", 0, b"x")
    event = await stage.events.log_event()
    assert (event.task, event.status, event.seq) == ("late", "gap", 6)


async def test_waiting_for_the_end_outlives_a_restart(stage: Stage) -> None:
    sink = await stage.logsink(end_wait="1")
    await stage.dispatcher.ended(facts(3), 1, "w1", "build")
    await stage.until("select judge_at is not null from attempt where job = 3")
    await sink.kill()
    await stage.logsink(end_wait="1")
    assert said(await stage.events.log_events(2)) == {SETUP_LOG: "gap", "build": "gap"}


async def test_artifacts_are_served_when_proven(stage: Stage) -> None:
    sink = await stage.logsink()
    job, body = facts(34), bytes(range(256)) * 4_000
    path = artifact_path(34, LINK, 1, 2, "a b/ü.bin")
    order = pieces(body, 100_000)
    random.Random(2).shuffle(order)
    await stage.dispatcher.started(job, 1, "w1")
    await stage.w1.artifact(34, 1, 2, "a b/ü.bin", [*order[1:], order[2]], body)
    await stage.w1.artifact(34, 1, 3, "wrong", [(0, b"not this")], b"but that")
    await stage.until("select bool_and(mismatch) from stream where label = '3'")
    assert (await stage.get(stage.url(sink) + path))[0] == 404
    await stage.w1.artifact(34, 1, 2, "a b/ü.bin", [order[0]], body)
    await stage.until("select state = 'sealed' from stream where label = '2'")

    status, headers, found = await stage.get(stage.url(sink) + path)
    assert (status, found) == (200, body)
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Disposition"] == "attachment; filename*=UTF-8''a%20b%2F%C3%BC.bin"
    assert headers["ETag"] == f'"{sha256(body)}"'
    for wrong in (
        artifact_path(34, LINK, 1, 2, "other"),
        artifact_path(34, LINK, 2, 2, "a b/ü.bin"),
        artifact_path(34, LINK, 1, 3, "wrong"),
    ):
        assert (await stage.get(stage.url(sink) + wrong))[0] == 404
    assert stage.events.empty() or (await stage.events.next()).type == "job.event.v1"


async def test_chunks_that_lie_are_dead_letters(stage: Stage) -> None:
    """The good ones around them are stored all the same."""
    await stage.logsink(log_limit="1000")
    await stage.dispatcher.started(facts(7), 1, "w1")
    await stage.w1.chunk(7, 1, "build", 0, b"good ")
    await stage.w1.chunk(7, 1, "build", 999, b"too far")
    await stage.w1.chunk(7, 1, "build", 5, b"", whole=bytes(2000))
    await stage.w1.chunk(7, 1, "build", 5, b"end", whole=b"good end")
    await stage.w1.chunk(7, 1, "build", 8, b"beyond")
    for reason in ("limit", "limit", "in a stream of 8"):
        letter = await stage.dead.next()
        assert letter.routing_key == "leveret.logsink.logs.07"
        assert reason in letter.headers["x-leveret-reason"]
        assert letter.headers["x-leveret-key"] == keys.log_chunk("w1", 7, 1, "build")
    event = await stage.events.log_event()
    assert (event.status, event.bytes) == ("sealed", 8)
