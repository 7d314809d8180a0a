"""Ended groups at the notifier: one mail, one signed post, under ids that no crash changes, and no event."""

import base64

import pytest
from nacl.signing import VerifyKey

from leveret_notifier.failpoints import DELIVERY_BETWEEN_SEND_AND_COMMIT, JOB_BEFORE_ACK, JOB_BEFORE_COMMIT
from leveret_notifier.triggers import group_delivery_id, group_id
from tests.integration.notifier.conftest import PUBLIC_KEY, Bench, ended_group, ended_job

MAIL = {"action": "email", "to": "Bob <bob@example.org>"}


def hook(bench: Bench, path: str = "/hook", **more: str) -> dict[str, str]:
    return {"action": "webhook", "url": bench.http.url(path)} | more


async def test_a_groups_end_is_one_mail_and_one_signed_post(bench: Bench) -> None:
    running = await bench.notifier()
    ended = ended_group("release", MAIL, hook(bench), hook(bench, condition="success"), state="failed")
    await bench.end(ended)
    mail, post = await bench.smtp.next(), await bench.http.next()
    assert mail.message["Subject"] == "[ada/release] group failed"
    assert mail.message["Message-ID"] == f"<{group_delivery_id(group_id(ended), 0)}@builds.example.org>"
    assert mail.message.get_content().splitlines()[-2:] == ["✓ #3, success", "- #4, cancelled"]
    assert (post.json["group"], post.json["status"]) == ("release", "failed")
    assert post.json["jobs"] == [{"id": 3, "status": "success"}, {"id": 4, "status": "cancelled"}]
    assert post.headers["X-Leveret-Event"] == "group.failed"
    assert post.delivery == str(group_delivery_id(group_id(ended), 1))
    signature = base64.b64decode(post.headers["X-Payload-Signature"])
    VerifyKey(base64.b64decode(PUBLIC_KEY)).verify(post.body + post.headers["X-Payload-Nonce"].encode(), signature)
    await bench.deliveries_end(2)
    # told twice it is sent once, and beside it jobs are served as ever
    await bench.end(ended)
    await bench.end(ended_job(7, hook(bench, "/last")))
    event = await bench.event("delivered")
    assert (event.facts.job, len(bench.events)) == (7, 1)
    assert (len(bench.smtp.mails), [post.path for post in bench.http.posts]) == (1, ["/hook", "/last"])
    assert '"group": "release"' in running.log.read_text()


@pytest.mark.parametrize("failpoint", [JOB_BEFORE_COMMIT, JOB_BEFORE_ACK, DELIVERY_BETWEEN_SEND_AND_COMMIT])
async def test_a_crash_over_a_group_repeats_under_the_same_ids_and_loses_nothing(bench: Bench, failpoint: str) -> None:
    ended = ended_group("release", MAIL, hook(bench))
    crashing = await bench.notifier(failpoint=failpoint)
    await bench.end(ended)
    await crashing.until_crashed()
    await bench.notifier()
    await bench.deliveries_end(2)
    group = group_id(ended)
    assert {mail.message["X-Leveret-Delivery"] for mail in bench.smtp.mails} == {str(group_delivery_id(group, 0))}
    assert {post.delivery for post in bench.http.posts} == {str(group_delivery_id(group, 1))}
    assert len({post.body for post in bench.http.posts}) == 1
    states = await bench.rows("select state, job from notify.delivery")
    assert [tuple(row) for row in states] == [("delivered", None)] * 2


async def test_a_groups_post_is_tried_again_until_it_is_taken(bench: Bench) -> None:
    bench.http.statuses = [503]
    await bench.notifier()
    await bench.end(ended_group("release", hook(bench)))
    first, second = await bench.http.next(), await bench.http.next()
    assert (first.delivery, first.body) == (second.delivery, second.body)
    await bench.deliveries_end(1)
