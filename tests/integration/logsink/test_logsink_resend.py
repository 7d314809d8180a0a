"""What logsink has lost of a log is asked for again, of the worker whose attempt it is, and the log is sealed."""

import asyncio

import pytest

from leveret_proto.links import log_path
from leveret_proto.messages import SETUP_LOG, MissingRange
from tests.integration.logsink.stage import LINK, Stage, facts, sha256

BODY = b"".join(b"line %d of a log that got holes\n" % number for number in range(1_000))
SOON = {"resend_after": "0.3"}


async def test_a_hole_is_asked_for_while_the_attempt_goes_on(stage: Stage) -> None:
    sink = await stage.logsink(**SOON)
    await stage.dispatcher.started(facts(7), 1, "w1")
    await stage.w1.chunk(7, 1, "build", 0, BODY[:5_000])
    await stage.w1.chunk(7, 1, "build", 7_000, BODY[7_000:], whole=BODY)
    wanted = await stage.asked.resend()
    assert (wanted.job, wanted.attempt, wanted.task) == (7, 1, "build")
    assert wanted.missing == (MissingRange(start=5_000, end=7_000),)
    await stage.w1.chunk(7, 1, "build", 5_000, BODY[5_000:7_000])
    event = await stage.events.log_event()
    assert (event.status, event.sha256) == ("sealed", sha256(BODY))
    assert (await stage.get(stage.url(sink) + log_path(7, LINK, 1, "build")))[2] == BODY


async def test_an_end_that_is_missing_and_a_log_of_which_nothing_came_are_asked_for(stage: Stage) -> None:
    await stage.logsink(**SOON)
    await stage.dispatcher.started(facts(7), 1, "w1")
    await stage.w1.log(7, 1, SETUP_LOG, b"set up\n")
    await stage.w1.chunk(7, 1, "endless", 0, BODY[:10])
    assert (await stage.events.log_event()).task == SETUP_LOG
    await stage.dispatcher.ended(facts(7), 1, "w1", "endless", "silent")
    wanted = {one.task: one.missing for one in [await stage.asked.resend() for _ in range(2)]}
    assert wanted == {"endless": (MissingRange(start=10),), "silent": (MissingRange(start=0),)}
    for task in wanted:
        await stage.w1.log(7, 1, task, BODY)
    events = await stage.events.log_events(2)
    assert [event.status for event in events] == ["sealed", "sealed"]
    assert {event.sha256 for event in events} == {sha256(BODY)}


async def test_a_worker_that_has_it_no_longer_leaves_a_gap(stage: Stage) -> None:
    """It is asked more than once until then."""
    await stage.logsink(resend_after="0.1", end_wait="2")
    await stage.dispatcher.started(facts(7), 1, "w1")
    await stage.w1.log(7, 1, SETUP_LOG, b"set up\n")
    await stage.w1.chunk(7, 1, "build", 0, BODY[:9], whole=BODY)
    await stage.dispatcher.ended(facts(7), 1, "w1", "build")
    assert (await stage.events.log_event()).task == SETUP_LOG
    event = await stage.events.log_event()
    assert (event.task, event.status, event.missing) == ("build", "gap", (MissingRange(start=9, end=len(BODY)),))
    assert [(await stage.asked.resend()).missing for _ in range(2)] == [event.missing] * 2


@pytest.mark.parametrize("lost", ["file", "row"])
async def test_a_log_whose_file_or_row_got_lost_is_asked_for_whole(stage: Stage, lost: str) -> None:
    """The file is lost before the proof has read it: the attempt becomes known only then."""
    sink = await stage.logsink(**SOON)
    await stage.w1.log(7, 1, "build", BODY)
    await stage.until("select bool_or(contiguous = total) from stream")
    if lost == "file":
        (file,) = stage.storage.rglob("build.log")
        file.write_bytes(bytes(len(BODY)))
    else:
        await stage.until("with gone as (delete from stream returning id) select count(*) from gone")
    await stage.dispatcher.ended(facts(7), 1, "w1", "build")
    async with asyncio.timeout(20):
        while (wanted := await stage.asked.resend()).task != "build":
            pass
    assert wanted.missing[0].start == 0
    await stage.w1.log(7, 1, "build", BODY)
    event = await stage.events.log_event()
    assert (event.status, event.sha256) == ("sealed", sha256(BODY))
    assert (await stage.get(stage.url(sink) + log_path(7, LINK, 1, "build")))[2] == BODY


async def test_a_digest_that_stays_wrong_is_a_gap(stage: Stage) -> None:
    await stage.logsink(**SOON)
    await stage.dispatcher.started(facts(7), 1, "w1")
    await stage.w1.chunk(7, 1, "build", 0, b"tampered", whole=b"original")
    assert (await stage.asked.resend()).missing == (MissingRange(start=0, end=8),)
    await stage.w1.chunk(7, 1, "build", 0, b"tampered")
    event = await stage.events.log_event()
    assert (event.status, event.missing, event.sha256) == ("gap", (MissingRange(start=0, end=8),), None)
    assert "SHA-256" in (event.detail or "")


async def test_only_the_attempts_own_worker_is_asked_and_believed(stage: Stage) -> None:
    """A foreign worker's holes under the same job are nobody's business, and what it sends fills no hole."""
    sink = await stage.logsink(**SOON)
    await stage.w1.chunk(7, 1, "theirs", 0, b"mine", whole=b"mine and more")
    await stage.dispatcher.started(facts(7), 1, "w2")
    await stage.dispatcher.started(facts(23), 1, "w1")
    await stage.w1.chunk(23, 1, "build", 0, BODY[:100], whole=BODY)
    wanted = await stage.asked.resend()
    assert (wanted.job, wanted.task) == (23, "build")
    await stage.w2.log(23, 1, "build", b"x" * len(BODY))
    await stage.w1.chunk(23, 2, "build", 100, b"x" * (len(BODY) - 100))
    await stage.w1.chunk(23, 1, "build", 100, BODY[100:])
    event = await stage.events.log_event()
    assert (event.facts.job, event.attempt, event.status) == (23, 1, "sealed")
    assert (await stage.get(stage.url(sink) + log_path(23, LINK, 1, "build")))[2] == BODY
    assert stage.asked.empty() or (await stage.asked.resend()).job == 23
