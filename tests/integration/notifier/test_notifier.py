"""The notifier as a process, on a real broker and database: delivered once, repeated after a crash, never lost."""

import asyncio
import base64
import os
import signal

import aio_pika
import pytest
from nacl.signing import VerifyKey

from leveret_notifier.failpoints import FAILPOINTS
from leveret_notifier.triggers import delivery_id
from leveret_proto.envelope import Parcel
from leveret_proto.messages import JobStatus
from leveret_proto.topology import DISPATCHER_DEAD, NOTIFIER_JOBS
from tests.integration.notifier.conftest import LIMIT, PUBLIC_KEY, Bench, ended_job

MAIL = {"action": "email", "to": "Bob <bob@example.org>", "cc": "ada@example.org", "in_reply_to": "<x@y.example>"}


def hook(bench: Bench, path: str = "/hook", **more: str) -> dict[str, str]:
    return {"action": "webhook", "url": bench.http.url(path)} | more


async def test_both_triggers_send_one_mail_and_one_signed_post(bench: Bench) -> None:
    await bench.notifier()
    job = ended_job(7, MAIL, hook(bench), hook(bench, condition="failure"))
    await bench.end(job)

    mail, post = await bench.smtp.next(), await bench.http.next()
    events = [await bench.event("delivered"), await bench.event("delivered")]

    assert mail.sender == "leveret@builds.example.org"
    assert mail.recipients == ["bob@example.org", "ada@example.org"]
    assert mail.message["Subject"] == "[ada/engine] build success"
    assert mail.message["In-Reply-To"] == "<x@y.example>"
    assert mail.message["Message-ID"] == f"<{delivery_id(job.facts, 0)}@builds.example.org>"
    assert "http://logs/build" in mail.message.get_content()

    assert post.json["id"] == 7 and post.json["status"] == "success"
    assert post.headers["Content-Type"] == "application/json"
    assert post.headers["X-Leveret-Event"] == "job.success"
    assert post.delivery == str(delivery_id(job.facts, 1))
    signature = base64.b64decode(post.headers["X-Payload-Signature"])
    VerifyKey(base64.b64decode(PUBLIC_KEY)).verify(post.body + post.headers["X-Payload-Nonce"].encode(), signature)

    assert [event.seq for event in events] == [1, 2]
    assert {event.delivery for event in events} == {str(delivery_id(job.facts, index)) for index in (0, 1)}
    assert len(bench.smtp.mails) == len(bench.http.posts) == 1


async def test_a_job_told_twice_is_sent_once_and_sigterm_ends_in_order(bench: Bench) -> None:
    running = await bench.notifier()
    job = ended_job(7, MAIL, hook(bench))
    await bench.end(job)
    await bench.event("delivered")
    await bench.event("delivered")
    await bench.end(job)
    await bench.end(ended_job(8, hook(bench, "/last")))
    # jobs are taken in order: when the last is served, the repeated one has been looked at
    event = await bench.event("delivered")
    assert event.facts.job == 8
    os.kill(running.pid, signal.SIGTERM)
    assert await running.wait() == 0
    assert len(bench.smtp.mails) == 1
    assert [post.path for post in bench.http.posts] == ["/hook", "/last"]


async def test_a_third_post_with_the_same_id_though_killed_in_between(bench: Bench) -> None:
    bench.http.statuses = [503, 503]
    job = ended_job(7, hook(bench))
    running = await bench.notifier()
    await bench.end(job)
    for tries in (1, 2):
        await bench.http.next()
        assert (await bench.event("retrying")).tries == tries
        await running.kill()
        running = await bench.notifier()
    await bench.http.next()
    last = await bench.event("delivered")
    assert (last.seq, last.tries) == (3, 3)
    assert {post.delivery for post in bench.http.posts} == {str(delivery_id(job.facts, 0))}
    assert len({post.body for post in bench.http.posts}) == 1
    assert len({post.headers["X-Payload-Nonce"] for post in bench.http.posts}) == 3


@pytest.mark.parametrize("failpoint", FAILPOINTS)
async def test_a_crash_at_any_line_repeats_and_loses_nothing(bench: Bench, failpoint: str) -> None:
    job = ended_job(7, MAIL, hook(bench))
    crashing = await bench.notifier(failpoint=failpoint)
    await bench.end(job)
    await crashing.until_crashed()
    await bench.notifier()

    events = [await bench.event("delivered"), await bench.event("delivered")]
    assert [event.seq for event in events] == [1, 2]
    assert {event.delivery for event in events} == {str(delivery_id(job.facts, index)) for index in (0, 1)}
    # the other end saw each at least once, always under one id
    assert {mail.message["Message-ID"] for mail in bench.smtp.mails} == {
        f"<{delivery_id(job.facts, 0)}@builds.example.org>"
    }
    assert {post.delivery for post in bench.http.posts} == {str(delivery_id(job.facts, 1))}
    assert len(bench.smtp.mails) + len(bench.http.posts) <= 4
    states = await bench.rows("select state from notify.delivery")
    assert [row["state"] for row in states] == ["delivered", "delivered"]
    assert len(bench.events) == 2


async def test_a_private_address_is_refused_at_once(bench: Bench) -> None:
    await bench.notifier(allow_private_addresses=False)
    addresses = [bench.http.url(), bench.http.url(host="localhost"), bench.http.url(host="[::ffff:127.0.0.1]")]
    await bench.end(ended_job(7, *({"action": "webhook", "url": url} for url in addresses)))
    for _ in addresses:
        event = await bench.event("failed")
        assert event.tries == 1
        assert event.detail is not None
        assert "private address" in event.detail and "127" not in event.detail
    assert bench.http.posts == []


async def test_a_final_refusal_is_final_and_the_last_try_gives_up(bench: Bench) -> None:
    bench.http.statuses = [410]
    await bench.notifier(retry_tries=2)
    await bench.end(ended_job(7, hook(bench)))
    gone = await bench.event("failed")
    assert (gone.tries, gone.detail) == (1, "HTTP 410")
    bench.http.statuses = [500, 500]
    await bench.end(ended_job(8, hook(bench)))
    await bench.event("retrying")
    given_up = await bench.event("failed")
    assert (given_up.tries, given_up.detail) == (2, "given up after 2 tries: HTTP 500")
    answers = await bench.rows("select answer from notify.delivery")
    assert [row["answer"] for row in answers] == ["thank you", "thank you"]


async def test_only_the_recipient_refused_for_now_gets_a_second_try(bench: Bench) -> None:
    bench.smtp.replies = {"bob@example.org": ["451 not now"], "gone@example.org": ["550 no such bob"]}
    await bench.notifier()
    trigger = {"action": "email", "to": "ada@example.org, bob@example.org, gone@example.org"}
    await bench.end(ended_job(7, trigger))
    waiting = await bench.event("retrying")
    assert waiting.detail == "2 of 3 recipients refused"
    await bench.event("delivered")
    assert [mail.recipients for mail in bench.smtp.mails] == [["ada@example.org"], ["bob@example.org"]]
    assert len({mail.message["Message-ID"] for mail in bench.smtp.mails}) == 1


async def test_two_notifiers_share_the_work_without_sending_twice(bench: Bench) -> None:
    await asyncio.gather(bench.notifier(), bench.notifier())
    for number in range(1, 21):
        await bench.end(ended_job(number, hook(bench), status=JobStatus.FAILED))
    for _ in range(20):
        await bench.event("delivered")
    assert sorted(post.json["id"] for post in bench.http.posts) == list(range(1, 21))


@pytest.mark.parametrize(
    ("parcel", "told"),
    [
        (Parcel(b"{}", "job.ended.v1"), "facts"),
        (Parcel(b'{"job": 1}', "command.show.v1"), "expected job.ended.v1 or group.ended.v1"),
    ],
)
async def test_what_cannot_be_read_is_filed_and_the_next_job_served(bench: Bench, parcel: Parcel, told: str) -> None:
    await bench.notifier()
    await bench.send_raw(parcel)
    await bench.end(ended_job(7, hook(bench)))
    await bench.event("delivered")
    connected = await aio_pika.connect(bench.vhost.url())
    async with connected:
        queue = await (await connected.channel()).get_queue(DISPATCHER_DEAD)
        async with asyncio.timeout(LIMIT):
            async with queue.iterator() as letters:
                async for letter in letters:
                    await letter.ack()
                    break
    assert letter.routing_key == NOTIFIER_JOBS
    assert told in str(letter.headers["x-leveret-reason"])


async def test_an_event_that_waits_for_the_broker_does_not_send_the_post_again(bench: Bench) -> None:
    running = await bench.notifier(retry_first_seconds=1)
    bench.http.statuses = [503]
    await bench.end(ended_job(7, hook(bench)))
    await bench.event("retrying")
    await _cut_connections(bench, "notifier")
    await bench.event("delivered")
    assert len(bench.http.posts) == 2
    assert '"waits_for": "RabbitMQ' in running.log.read_text()


async def _cut_connections(bench: Bench, user: str) -> None:
    """Have the broker close every connection of `user`, which its management API calls by."""
    for name in [each["name"] for each in await bench.vhost.api("GET", "connections") if each.get("user") == user]:
        await bench.vhost.api("DELETE", f"connections/{name.replace(' ', '%20').replace('>', '%3E')}")
