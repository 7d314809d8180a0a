"""Intake as a process, with a real broker and database: one submission, one job, one id, whatever dies."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

import aio_pika
import asyncpg
import pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aiormq.exceptions import ChannelAccessRefused

from leveret_intake.failpoints import FAILPOINTS
from leveret_proto import keys, permissions
from leveret_proto.envelope import unpack
from leveret_proto.ids import message_id as new_message_id
from leveret_proto.messages import Message, ReadyJob, SubmissionAccepted, SubmissionEvent, SubmissionRejected
from leveret_proto.topology import DEAD, DISPATCHER_DEAD, DISPATCHER_JOBS, EVENTS, INTAKE_SUBMISSIONS, RECORD, SUBMIT
from tests.support.databases import Database
from tests.support.services import Service, Services
from tests.support.vhosts import Vhost

GOOD = b"image: debian/trixie\ntasks:\n  - build: make\n"
REPLY_TO = "amq.rabbitmq.reply-to"
OWNER = "~alice"
LIMIT = 20.0


@dataclass
class Room:
    """A virtual host and a database with intakes at work, and a submitter's channel."""

    vhost: Vhost
    database: Database
    services: Services
    connection: AbstractConnection
    channel: AbstractChannel
    replies: "asyncio.Queue[AbstractIncomingMessage]"

    async def intake(self, failpoint: str | None = None, *, ready: bool = True) -> Service:
        environment = {
            "LEVERET_INTAKE_AMQP_URL": self.vhost.url("intake"),
            "LEVERET_INTAKE_DATABASE_URL": self.database.dsn_for("intake"),
        }
        return await self.services.start("leveret_intake.main", environment, failpoint=failpoint, ready=ready)

    async def publish(self, body: bytes = GOOD, *, owner: str = OWNER, **properties: Any) -> None:
        properties = {"reply_to": REPLY_TO, "correlation_id": "c"} | properties
        message = aio_pika.Message(body, delivery_mode=2, **properties)
        exchange = await self.channel.get_exchange(SUBMIT, ensure=False)
        await exchange.publish(message, keys.submission(owner, "scdoc"), mandatory=True, timeout=LIMIT)

    async def publish_anonymously(self, body: bytes = GOOD) -> None:
        """Publish without a `message_id`, as some clients do: over HTTP, for aio-pika would make one up."""
        queue = await self.channel.declare_queue(exclusive=True)
        await queue.consume(self.replies.put, no_ack=True)
        sent = {
            "properties": {"reply_to": queue.name, "delivery_mode": 2},
            "routing_key": keys.submission(OWNER, "scdoc"),
            "payload": base64.b64encode(body).decode(),
            "payload_encoding": "base64",
        }
        answer = await self.vhost.api("POST", f"exchanges/{self.vhost.name}/{SUBMIT}/publish", sent)
        assert answer == {"routed": True}

    async def reply(self) -> Message:
        async with asyncio.timeout(LIMIT):
            answer = await self.replies.get()
        return unpack(answer.body, answer.type)

    async def submit(self, body: bytes = GOOD, **properties: Any) -> Message:
        await self.publish(body, **properties)
        return await self.reply()

    async def rows(self) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.database.dsn, timeout=LIMIT)
        try:
            return await connection.fetch("select * from intake.submission order by job")
        finally:
            await connection.close()

    async def ready_jobs(self, count: int) -> list[ReadyJob]:
        """The next `count` jobs of the dispatcher's queue."""
        return [message for message in await self.take(DISPATCHER_JOBS, count) if isinstance(message, ReadyJob)]

    async def take(self, queue: str, count: int) -> list[Message]:
        return [unpack(raw.body, raw.type) for raw in await self.take_raw(queue, count)]

    async def take_raw(self, queue: str, count: int) -> list[AbstractIncomingMessage]:
        """The next `count` messages of `queue`, acked; waits for them on a consumer, not on a clock."""
        found: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        async with self.connection.channel() as channel:
            await channel.set_qos(prefetch_count=1)
            await (await channel.get_queue(queue, ensure=False)).consume(found.put)
            taken = []
            async with asyncio.timeout(LIMIT):
                while len(taken) < count:
                    taken.append(await found.get())
                    await taken[-1].ack()
        return taken

    async def waiting(self, queue: str) -> int:
        declared = await self.channel.declare_queue(queue, passive=True)
        return declared.declaration_result.message_count or 0


@asynccontextmanager
async def _room(vhost: Vhost, database: Database, services: Services) -> AsyncIterator[Room]:
    await vhost.provision({"alice": permissions.submitter((OWNER,))})
    connection = await aio_pika.connect(vhost.url())
    async with connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        replies: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        await (await channel.get_queue(REPLY_TO, ensure=False)).consume(replies.put, no_ack=True)
        yield Room(vhost, database, services, connection, channel, replies)


@pytest.fixture
async def room(vhost: Vhost, database: Database, services: Services) -> AsyncIterator[Room]:
    async with _room(vhost, database, services) as made:
        yield made


def job_of(answer: Message) -> int:
    assert isinstance(answer, SubmissionAccepted), answer
    return answer.job


async def test_a_manifest_becomes_a_ready_job_and_an_answer_with_its_id(room: Room) -> None:
    await room.intake()
    answer = await room.submit(
        GOOD + b"pacakges: [x]\n", message_id="first", headers={"note": "n", "visibility": "public"}
    )
    (job,) = await room.ready_jobs(1)
    assert isinstance(answer, SubmissionAccepted)
    assert (answer.submission, answer.known, answer.owner) == ("first", False, OWNER)
    assert "packages" in answer.warnings[0].message + answer.warnings[0].hint
    assert (job.facts.job, job.facts.project, job.facts.note) == (answer.job, "scdoc", "n")
    assert job.requirement.key == "x86_64.debian/trixie.any"
    (row,) = await room.rows()
    assert row["submitted_at"] == job.submitted_at
    assert row["handed_on_at"] is not None


async def test_resubmission_gets_the_same_id_and_another_body_a_conflict(room: Room) -> None:
    await room.intake()
    job = job_of(await room.submit(message_id="same"))
    again = await room.submit(message_id="same")
    assert isinstance(again, SubmissionAccepted)
    assert (again.job, again.known) == (job, True)
    conflict = await room.submit(GOOD + b"# other\n", message_id="same")
    assert isinstance(conflict, SubmissionRejected)
    assert conflict.reason == "conflict"
    # the same message_id of another owner is another submission
    assert job_of(await room.submit(message_id="same", owner="~bob")) != job
    assert job_of(await room.submit(message_id="other")) > job
    assert len(await room.ready_jobs(3)) == 3
    assert await room.waiting(DISPATCHER_JOBS) == 0


async def test_without_a_message_id_each_submission_is_a_job_of_its_own(room: Room) -> None:
    await room.intake()
    await room.publish_anonymously()
    first = await room.reply()
    await room.publish_anonymously()
    second = await room.reply()
    assert job_of(first) != job_of(second)
    assert all(not row["own_id"] and row["settled_at"] for row in await room.rows())
    assert isinstance(first, SubmissionAccepted)
    assert len(first.submission) == 36


async def test_three_faults_are_one_reply_with_three_lines_and_an_event_to_both_exchanges(room: Room) -> None:
    record = await room.channel.declare_queue(exclusive=True)
    await record.bind(RECORD, "submission.#")
    public = await room.channel.declare_queue(exclusive=True)
    await public.bind(EVENTS, "submission.public.*.rejected")
    await room.intake()
    body = b"image: [1]\ntasks:\n  - build: make\n  - BUILD: x\nenvironment: [a]\n"
    answer = await room.submit(body, message_id="bad", headers={"visibility": "public"})
    assert isinstance(answer, SubmissionRejected)
    assert [found.line for found in answer.diagnostics] == [1, 4, 5]
    (first,), (second,) = await room.take_raw(record.name, 1), await room.take_raw(public.name, 1)
    event = unpack(first.body, first.type)
    assert isinstance(event, SubmissionEvent)
    assert (event.owner, event.submission, event.diagnostics) == (OWNER, "bad", answer.diagnostics)
    assert first.message_id == second.message_id
    assert await room.rows() == []
    assert await room.waiting(DISPATCHER_DEAD) == 0


HOSTILE = {
    "not yaml": b"\x00\x01\xfe\xff binary",
    "10 MiB of nesting": b"[" * (10 * 1024 * 1024),
    "json nesting": b"[" * (3 * 1024 * 1024),
    "alias bomb": b"a: &a [x, x, x, x, x, x, x, x, x]\n"
    + b"".join(b"%c: &%c [%s]\n" % (n, n, b", ".join([b"*%c" % (n - 1)] * 9)) for n in range(ord("b"), ord("k"))),
}


async def test_hostile_bodies_are_rejected_in_under_a_second_and_filed_as_dead_letters(room: Room) -> None:
    service = await room.intake()
    for name, body in HOSTILE.items():
        content_type = "application/json" if name.startswith("json") else None
        begun = monotonic()
        answer = await room.submit(body, content_type=content_type)
        assert monotonic() - begun < 1.0, name
        assert isinstance(answer, SubmissionRejected), name
        assert answer.reason in ("unreadable", "envelope")
        (letter,) = await room.take_raw(DISPATCHER_DEAD, 1)
        assert letter.exchange == DEAD
        assert letter.routing_key == INTAKE_SUBMISSIONS
        assert letter.headers["x-leveret-bytes"] == len(body)
        assert answer.message[:30] in str(letter.headers["x-leveret-reason"])
    assert job_of(await room.submit())
    assert service.running


async def test_no_answer_goes_to_a_queue_that_is_no_reply_queue(room: Room) -> None:
    await room.intake()
    for reply_to in (
        DISPATCHER_JOBS,
        "amq.rabbitmq.reply-to.no-such-requester",
        "amq.gen-gone",
        "amq.rabbitmq.reply-to.",
    ):
        await room.publish(message_id=new_message_id(), reply_to=reply_to)
    assert job_of(await room.submit())  # still answering
    assert len(await room.ready_jobs(5)) == 5
    assert await room.waiting(DISPATCHER_JOBS) == 0


HOSTILE_PROPERTIES = {
    "message_id": {"message_id": b"\xff" * 255},
    "type": {"type": b"\xff" * 255},
    "reply_to": {"reply_to": b"amq.gen-\xff", "correlation_id": b"\xff" * 255},
    "header value": {"headers": {"note": b"\xff"}},
    "header name": {"headers": {b"\xff": "x"}},
    "time": {"timestamp": 2**63 - 1},
}


async def test_properties_that_can_not_be_read_do_no_harm(room: Room) -> None:
    """To the broker short strings are bytes; a client that insists on UTF-8 would lose its connection over them."""
    service = await room.intake()
    await asyncio.to_thread(_publish_with, room.vhost.url(), list(HOSTILE_PROPERTIES.values()))
    letters = await room.take_raw(DISPATCHER_DEAD, 3)
    assert all("envelope" in str(letter.headers["x-leveret-reason"]) for letter in letters)
    assert job_of(await room.submit())
    assert len(await room.rows()) == len(HOSTILE_PROPERTIES) - len(letters) + 1
    assert "waits_for" not in service.log.read_text()


def _publish_with(url: str, properties: list[dict[str, Any]]) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        for given in properties:
            channel.basic_publish(SUBMIT, keys.submission(OWNER, "x"), GOOD, pika.BasicProperties(**given))


async def test_a_submitter_can_not_submit_for_somebody_else(room: Room) -> None:
    await room.intake()
    async with await aio_pika.connect(room.vhost.url("alice")) as connection:
        channel = await connection.channel(publisher_confirms=True)
        exchange = await channel.get_exchange(SUBMIT, ensure=False)
        with pytest.raises(ChannelAccessRefused, match="ACCESS_REFUSED"):
            await exchange.publish(aio_pika.Message(GOOD), keys.submission("~bob", "x"), timeout=LIMIT)
    assert await room.rows() == []


@pytest.mark.parametrize("failpoint", FAILPOINTS)
@pytest.mark.parametrize("message_id", ["mine", None])
async def test_killed_at_any_line_it_makes_one_job_with_one_id(
    room: Room, failpoint: str, message_id: str | None
) -> None:
    async def publish() -> None:
        await (room.publish(message_id=message_id) if message_id else room.publish_anonymously())

    doomed = await room.intake(failpoint)
    await publish()
    await doomed.until_crashed()
    await room.intake()
    answer = await room.reply()
    (row,) = await room.rows()
    assert job_of(answer) == row["job"]
    (job,) = await room.ready_jobs(1)
    assert (job.facts.job, job.facts.link) == (row["job"], row["link"])
    # a later submission of the same body, no redelivery, is another job unless its message_id says it is not
    await publish()
    later = await room.reply()
    while message_id is None and job_of(later) == row["job"]:  # killed after its answer went out, it had answered again
        later = await room.reply()
    assert (job_of(later) == row["job"]) is (message_id is not None)
    assert len(await room.rows()) == (1 if message_id else 2)


async def test_a_rejection_survives_a_crash_before_its_ack(room: Room) -> None:
    doomed = await room.intake("intake.submission.before-ack")
    await room.publish(b"image: [1]\ntasks: [{a: b}]\n")
    await doomed.until_crashed()
    await room.intake()
    assert isinstance(await room.reply(), SubmissionRejected)


async def test_many_submissions_under_one_message_id_to_two_intakes_of_which_one_dies_are_one_job(
    room: Room,
) -> None:
    count = 1000
    doomed = await room.intake("intake.submission.between-commit-and-publish:7")
    await room.intake()
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(room.publish(message_id="one"))
    ids = set()
    for _ in range(count):
        ids.add(job_of(await room.reply()))
    await doomed.until_crashed()
    (row,) = await room.rows()
    assert ids == {row["job"]}
    jobs = await room.ready_jobs(await room.waiting(DISPATCHER_JOBS))
    assert {job.facts.job for job in jobs} == {row["job"]}


async def test_it_waits_for_a_broker_that_takes_no_ready_job_and_loses_nothing(room: Room) -> None:
    """The dispatcher's queue is unbound: the mandatory message comes back and is repeated until it is taken."""
    jobs = await room.channel.get_queue(DISPATCHER_JOBS, ensure=False)
    await jobs.unbind("leveret.jobs", "#")
    service = await room.intake()
    await room.publish(message_id="waits")
    async with asyncio.timeout(LIMIT):
        while "not taken" not in service.log.read_text():
            await asyncio.sleep(0.05)
    await jobs.bind("leveret.jobs", "#")
    job = job_of(await room.reply())
    assert [ready.facts.job for ready in await room.ready_jobs(1)] == [job]


async def test_dependencies_and_group_reach_the_dispatcher_from_json_and_from_headers(room: Room) -> None:
    await room.intake()
    first = job_of(await room.submit())
    asked = {"manifest": GOOD.decode(), "depends_on": [first, first], "group": "g", "priority": 5}
    body = json.dumps(asked).encode()
    second = job_of(await room.submit(body, content_type="application/json", type="job.submission.v1"))
    job_of(await room.submit(headers={"depends_on": [first, second], "group": "g", "priority": -5}))
    _, json_job, raw_job = await room.ready_jobs(3)
    assert (json_job.depends_on, json_job.facts.group, json_job.priority) == ((first,), "g", 5)
    assert (raw_job.depends_on, raw_job.facts.group, raw_job.priority) == ((first, second), "g", -5)


async def test_a_dependency_that_is_no_job_of_the_owners_is_rejected_by_name(room: Room) -> None:
    """Whether the job is somebody else's or nobody's is not told: the answer is the same."""
    await room.intake()
    mine, others = job_of(await room.submit()), job_of(await room.submit(owner="~bob"))
    unknown = others + 1000
    own = others + 1  # the number that this submission would get
    for wrong in ([others], [mine, unknown], [own]):
        answer = await room.submit(message_id="dependent", headers={"depends_on": [mine, *wrong]})
        assert isinstance(answer, SubmissionRejected)
        assert (answer.reason, answer.submission) == ("faults", "dependent")
        assert f"there is no job {wrong[-1]} of yours" in answer.message
    answer = await room.submit(headers={"depends_on": f"{others}, {unknown}"})
    assert isinstance(answer, SubmissionRejected)
    assert f"there are no jobs {others}, {unknown} of yours" in answer.message
    assert await room.waiting(DISPATCHER_DEAD) == 0
    assert [row["job"] for row in await room.rows()] == [mine, others]
    accepted = job_of(await room.submit(message_id="dependent", headers={"depends_on": [mine]}))
    assert accepted == own  # nothing was numbered in between
