"""Replay: who is given which event, pages that join without a seam, and the ring of the newest records."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_logsink.replay_page import LONGEST, Page, View
from leveret_logsink.ring import Record, Ring
from leveret_proto import keys
from leveret_proto.envelope import MAX_BODY, pack, unpack_as
from leveret_proto.messages import (
    DeliveryEvent,
    GroupEvent,
    GroupView,
    JobEvent,
    JobFacts,
    JobStatus,
    LogEvent,
    Message,
    Reason,
    Replay,
    ReplayReply,
    SubmissionEvent,
    TaskEvent,
    TaskResult,
    TaskState,
    Visibility,
    WorkerEvent,
)

AT = datetime(2026, 7, 1, 12, tzinfo=UTC)
ME = "~me.x"
PUBLIC, UNLISTED, PRIVATE = Visibility.PUBLIC, Visibility.UNLISTED, Visibility.PRIVATE


def facts(job: int, owner: str, visibility: Visibility) -> JobFacts:
    return JobFacts(job=job, owner=owner, project="p", visibility=visibility, submission=f"m{job}", link="l" * 24)


def job_event(job: int, owner: str, visibility: Visibility, at: datetime = AT) -> tuple[str, Message]:
    event = JobEvent(
        facts=facts(job, owner, visibility), source="dispatcher", seq=1, at=at, status=JobStatus.PENDING,
        reason=Reason.SUBMITTED,
    )  # fmt: skip
    return keys.job_event(visibility, owner, job, "pending"), event


def events_of(owner: str, visibility: Visibility, job: int = 1) -> list[tuple[str, Message]]:
    """One of each kind that has an owner."""
    about = {"facts": facts(job, owner, visibility), "seq": 1, "at": AT}
    task = TaskResult(name="t", state=TaskState.RUNNING)
    group = GroupView(owner=owner, group="g", state="success", visibility=visibility)
    return [
        job_event(job, owner, visibility),
        (keys.task_event(visibility, owner, job, "t", "running"),
         TaskEvent(**about, source="dispatcher", attempt=1, task=task)),
        (keys.log_event(visibility, owner, job, "t", "sealed"),
         LogEvent(**about, source="logsink", status="sealed", attempt=1, task="t", bytes=1)),
        (keys.delivery_event(visibility, owner, job, "delivered"),
         DeliveryEvent(**about, source="notifier", delivery="d", action="email", status="delivered", tries=1)),
        (keys.submission_event(visibility, owner),
         SubmissionEvent(owner=owner, project="p", visibility=visibility, reason="faults", message="m", at=AT)),
        (keys.group_event(visibility, owner, "g", "success"), GroupEvent(group=group, at=AT)),
    ]  # fmt: skip


WORKER = (keys.worker_event("w", "joined"), WorkerEvent(worker="w", state="joined", at=AT))


def stream(events: Sequence[tuple[str, Message]], first: int = 0) -> list[Record]:
    records = []
    for offset, (key, event) in enumerate(events, first):
        parcel = pack(event)
        records.append(Record(offset, key, parcel.type, parcel.message_id, parcel.body))
    return records


def kinds(records: Sequence[Record], **asked: Any) -> list[str]:
    """The first word of the key of each record that is given."""
    view = View(ME, Replay(**asked))
    return [record.key.split(".")[0] for record in records if view.event(record) is not None]


OWNED = ["job", "task", "log", "delivery", "submission", "group"]


@pytest.mark.parametrize("visibility", list(Visibility))
def test_an_owner_is_given_its_own_of_every_kind_and_visibility(visibility: Visibility) -> None:
    records = stream([*events_of(ME, visibility), WORKER])
    assert kinds(records) == OWNED
    assert kinds(records, workers=True) == [*OWNED, "worker"]
    assert kinds(records, job=1) == ["job", "task", "log", "delivery"]
    assert kinds(records, job=2, workers=True) == ["worker"]


def test_of_others_only_what_is_public_and_only_where_asked_for() -> None:
    records = stream([event for visibility in Visibility for event in events_of("~other", visibility)])
    assert kinds(records, workers=True) == []
    assert kinds(records, public=True) == OWNED
    assert kinds(records, public=True, job=1) == ["job", "task", "log", "delivery"]


def test_the_body_decides_whatever_the_key_says() -> None:
    mine, theirs = job_event(1, ME, PRIVATE), job_event(1, "~other", PRIVATE)
    assert kinds(stream([(mine[0], theirs[1])])) == []
    public = job_event(1, "~other", PUBLIC)
    assert kinds(stream([(public[0], theirs[1])]), public=True) == []
    assert kinds(stream([mine])) == ["job"]


def test_what_is_no_event_or_cannot_be_read_is_passed_over() -> None:
    key, event = job_event(1, ME, PRIVATE)
    good = pack(event)
    bad = [
        Record(0, key, good.type, None, b"{"),
        Record(1, key, good.type, None, b"\xff"),
        Record(2, key, "job.event.v99", None, good.body),
        Record(3, key, None, None, good.body),
        Record(4, key, "command.show.v1", None, b'{"job": 1}'),
        Record(5, "leveret.replay", "replay.mark.v1", "m", b""),
        Record(6, "job", good.type, None, good.body),
        Record(7, "", good.type, None, good.body),
        Record(8, key, good.type, None, b'{"facts":' + b"[" * 100_000),
    ]
    page = Page(ME, Replay())
    assert all(page.offer(record) for record in [*bad, *stream([(key, event)], first=9)])
    reply = page.reply(end=True)
    assert [given.offset for given in reply.events] == [9]
    assert reply.next == 9


def test_since_is_exact_whatever_order_the_stream_has() -> None:
    ats = [AT + timedelta(microseconds=n) for n in (5, -1, 0, -1_000_000, 1)]
    records = stream([job_event(1, ME, PRIVATE, at) for at in ats])
    view = View(ME, Replay(since=AT))
    assert [record.offset for record in records if view.event(record)] == [0, 2, 4]


def test_a_place_that_the_stream_has_no_more_is_told_and_one_that_it_skips_is_not() -> None:
    key, told = job_event(1, ME, PRIVATE)
    records = [record for record in stream([(key, told)] * 9, first=4) if record.offset != 7]

    def page(after: int | None) -> tuple[list[int], bool]:
        asked = Page(ME, Replay(after=after))
        read = [record for record in records if after is None or record.offset >= after]
        asked.begin(read[0].offset)
        assert all(asked.offer(record) for record in read)
        reply = asked.reply(end=True)
        return [given_.offset for given_ in reply.events], reply.truncated

    kept = [4, 5, 6, 8, 9, 10, 11, 12]
    assert page(None) == (kept, False)
    assert page(3) == (kept, True)
    assert page(4) == (kept[1:], False)
    assert page(6) == (kept[3:], False)


def test_an_event_that_no_reply_could_hold_is_left_out_and_every_other_fits() -> None:
    def sized(offset: int, size: int) -> Record:
        key, event = job_event(1, ME, PRIVATE)
        body = pack(event).body[:-1] + b',"x":""}'
        filled = body[:-2] + b"x" * (size - len(body)) + body[-2:]
        return Record(offset, key, event.TYPE, "i" * 255, filled)

    page = Page(ME, Replay(limit=1000))
    assert page.offer(sized(0, LONGEST + 1))
    assert page.offer(sized(1, LONGEST))
    assert not page.offer(sized(2, 1000))
    assert len(pack(page.reply(end=False)).body) < MAX_BODY
    many = Page(ME, Replay(limit=1000))
    assert [many.offer(sized(n, 400)) for n in range(1001)].index(False) == 1000


events = st.lists(
    st.tuples(st.sampled_from([ME, "~other"]), st.sampled_from(list(Visibility)), st.integers(1, 3), st.integers(0, 3)),
    max_size=30,
).map(
    lambda drawn: [job_event(job, owner, seen, AT + timedelta(seconds=at)) for owner, seen, job, at in drawn] + [WORKER]
)
asks = st.builds(
    dict,
    job=st.none() | st.integers(1, 3),
    public=st.booleans(),
    workers=st.booleans(),
    since=st.none() | st.integers(0, 4).map(lambda at: AT + timedelta(seconds=at)),
    limit=st.integers(1, 7),
)


@given(events, asks, st.integers(1, 4000), st.integers(1, 10), st.integers(1, 12), st.integers(0, 5))
def test_pages_laid_end_to_end_are_the_filtered_stream(
    told: list[tuple[str, Message]], asked: dict[str, Any], most_bytes: int, looks: int, ring_records: int, first: int
) -> None:
    """Whatever bounds a page, however few records are looked at for one, and wherever memory joins the stream."""
    records = stream(told, first)
    ring = Ring(ring_records, 1_000_000)
    for record in records:
        ring.add(record)
    after: int | None = None
    given_: list[int] = []
    for _ in range(len(records) * 2 + 2):
        page = Page(ME, Replay(after=after, **asked), most_bytes=most_bytes)
        start = -1 if after is None else after
        page.begin(max(start, first))
        rest = list(ring.after(start)) if ring.covers(start) else [r for r in records if r.offset >= start][: looks + 1]
        full = not all(page.offer(record) for record in rest)
        ended = not full and ring.covers(start)
        reply = unpack_as(ReplayReply, pack(page.reply(end=ended)).body, ReplayReply.TYPE)
        assert len(reply.events) <= asked["limit"]
        assert not reply.truncated
        given_ += [event.offset for event in reply.events]
        after = reply.next
        if reply.end:
            break
    else:
        raise AssertionError("no end")
    view = View(ME, Replay(**asked))
    assert given_ == [record.offset for record in records if view.event(record) is not None]


@given(st.lists(st.integers(0, 2000), min_size=1, max_size=60), st.integers(1, 20), st.integers(1, 20_000))
def test_the_ring_holds_the_newest_without_a_gap_and_knows_what_it_lacks(
    sizes: list[int], most_records: int, most_bytes: int
) -> None:
    ring = Ring(most_records, most_bytes)
    assert not ring.covers(0)
    records = [Record(offset, "k", None, None, b"x" * size) for offset, size in enumerate(sizes, 100)]
    for count, record in enumerate(records, 1):
        ring.add(record)
        ring.add(record)  # again changes nothing
        assert ring.floor is not None
        held = list(ring.after(ring.floor))
        assert held == records[count - len(held) : count]
        assert len(held) <= most_records
        assert sum(record.size for record in held) <= most_bytes
        # as many as may be: the next older one would be too many
        if len(held) < count and len(held) < most_records:
            assert sum(record.size for record in held) + records[count - len(held) - 1].size > most_bytes
        assert ring.newest == record.offset
        assert ring.covers(ring.floor)
        assert not ring.covers(ring.floor - 1)
        if len(held) > 1:
            assert list(ring.after(held[0].offset)) == held[1:]


def test_bodies_reach_the_reader_as_they_were_published() -> None:
    key, event = job_event(1, ME, PRIVATE)
    body = pack(event).body[:-1] + b',"of_a_newer_version":{"x":[1,null]}}'
    page = Page(ME, Replay())
    page.offer(Record(0, key, event.TYPE, "id", body))
    (given_,) = page.reply(end=True).events
    assert given_.body == json.loads(body)
    assert (given_.type, given_.message_id) == (event.TYPE, "id")
    assert all(a.offset < b.offset for a, b in pairwise(page.reply(end=True).events))
