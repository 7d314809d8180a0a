"""A log belongs to one attempt: what another one sends, at whatever time, changes no byte of it."""

from leveret_proto.links import log_path
from leveret_proto.messages import JobStatus, Reason
from tests.integration.logsink.stage import LINK, Stage, facts, sha256

FIRST = b"first " * 1_500
SECOND = b"2nd!" * 1_000


async def test_an_earlier_attempt_changes_nothing_though_its_log_arrives_last(stage: Stage) -> None:
    sink = await stage.logsink()
    await _attempts(stage)
    await stage.w1.chunk(5, 1, "build", 0, FIRST[:1_000])
    await stage.w2.log(5, 2, "build", SECOND)
    assert (await stage.events.log_event()).sha256 == sha256(SECOND)
    await stage.w1.log(5, 1, "build", FIRST)
    assert (await stage.events.log_event()).sha256 == sha256(FIRST)
    await _are_apart(stage, stage.url(sink))


async def test_a_later_attempt_starts_from_nothing_though_the_earlier_one_is_longer(stage: Stage) -> None:
    """The same worker has both, and the second one's log begins with its end."""
    sink = await stage.logsink()
    await stage.w1.log(5, 1, "build", FIRST)
    await stage.w1.chunk(5, 2, "build", 3_000, SECOND[3_000:], whole=SECOND)
    await _attempts(stage, second="w1")
    assert (await stage.events.log_event()).sha256 == sha256(FIRST)
    await stage.w1.chunk(5, 1, "build", 0, FIRST[:1_000])  # again, as after an outage
    await stage.w1.chunk(5, 2, "build", 0, SECOND[:3_000])
    assert (await stage.events.log_event()).sha256 == sha256(SECOND)
    await _are_apart(stage, stage.url(sink))


async def _attempts(stage: Stage, second: str = "w2") -> None:
    job = facts(5)
    await stage.dispatcher.started(job, 1, "w1")
    await stage.dispatcher.tell(job, JobStatus.PENDING, Reason.LOST, attempt=1, worker="w1")
    await stage.dispatcher.started(job, 2, second)


async def _are_apart(stage: Stage, url: str) -> None:
    for attempt, body in ((1, FIRST), (2, SECOND)):
        assert (await stage.get(url + log_path(5, LINK, attempt, "build")))[2] == body
