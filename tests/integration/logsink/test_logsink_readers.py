"""Readers: HTTP, the live tail, and history over the broker."""

import asyncio
import base64
import re
from datetime import UTC, datetime
from typing import Any

from leveret_logsink.signing import Signer
from leveret_proto import keys
from leveret_proto.envelope import unpack
from leveret_proto.links import artifact_path, log_path
from leveret_proto.messages import (
    SETUP_LOG,
    AskLinks,
    CancelJob,
    CommandFailed,
    HistoryReply,
    LinksReply,
    LogHistory,
    Visibility,
)
from tests.integration.logsink.stage import LIMIT, LINK, LINK_KEY, Stage, facts, pieces, sha256
from tests.support.event_stream import LogReader

BODY = b"0123456789abcdefghij"


async def test_http(stage: Stage) -> None:
    sink = await stage.logsink()
    task = "a/b c.ü"
    url = stage.url(sink) + log_path(21, LINK, 1, task)
    await stage.dispatcher.started(facts(21), 1, "w1")
    await stage.w1.chunk(21, 1, task, 0, BODY[:10])
    await stage.w1.chunk(21, 1, task, 15, BODY[15:])
    await stage.until("select stored = '{0,10,15,20}' from stream")

    # open: as far as it is there without a hole
    status, headers, body = await stage.get(url)
    assert (status, body, headers["Leveret-Log"]) == (200, BODY[:10], "open")
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"].startswith("sandbox")
    growing = headers["ETag"]
    await stage.w1.chunk(21, 1, task, 10, BODY[10:15], whole=BODY)
    assert (await stage.events.log_event()).status == "sealed"

    status, headers, body = await stage.get(url, Range="bytes=5-14")
    assert (status, body, headers["Content-Range"]) == (206, BODY[5:15], "bytes 5-14/20")
    assert (await stage.get(url, Range="bytes=-3"))[2] == BODY[-3:]
    assert (await stage.get(url, Range="bytes=18-99"))[2] == BODY[18:]
    status, headers, _ = await stage.get(url, Range="bytes=20-")
    assert (status, headers["Content-Range"]) == (416, "bytes */20")
    # a reader that has an older state of it gets all of the new one
    assert (await stage.get(url, Range="bytes=10-", If_Range=growing))[::2] == (200, BODY)
    etag = f'"{sha256(BODY)}"'
    assert (await stage.get(url, Range="bytes=10-", If_Range=etag))[::2] == (206, BODY[10:])
    assert (await stage.get(url, If_None_Match=etag))[0] == 304
    status, headers, body = await stage.get(url, method="HEAD")
    assert (status, headers["Content-Length"], body) == (200, "20", b"")
    assert (await stage.get(stage.url(sink) + "/health"))[0] == 200

    wrong = [
        log_path(21, LINK[:-1] + "x", 1, task),
        log_path(21, "é", 1, task),
        log_path(22, LINK, 1, task),
        log_path(21, LINK, 2, task),
        log_path(21, LINK, 1, "other"),
        f"/jobs/21/{LINK}/1/logs/..%2F..%2F..%2Fpasswd",
        f"/jobs/-1/{LINK}/1/logs/x",
        f"/jobs/{10**30}/{LINK}/1/logs/x",
        f"/jobs/021/{LINK}/1/logs/x",
        f"/jobs/21/{LINK}/{2**40}/logs/x",
        f"/jobs/21/{LINK}/1/logs/%00",
        f"/jobs/21/{LINK}/1/logs/%FF",
        f"/jobs/21/{LINK}/1/artifacts/x/y",
    ]
    answers = {path: (await stage.get(stage.url(sink) + path))[::2] for path in wrong}
    assert set(answers.values()) == {(404, b"404: Not Found")}, answers
    assert (await stage.get(url, method="POST"))[0] == 405


async def test_tails_and_conditions_over_http(stage: Stage) -> None:
    sink = await stage.logsink()
    url = stage.url(sink) + log_path(22, LINK, 1, "build")
    body = b"one\ntwo\nthree\n"
    await stage.dispatcher.started(facts(22), 1, "w1")
    await stage.w1.log(22, 1, "build", body)
    await stage.events.log_event()
    etags = set()
    for last, begins in (("8", 8), ("6", 8), ("7", 8), ("5", 9), ("10", 4), ("11", 4), ("0", 14), ("1KiB", 0)):
        status, headers, tail = await stage.get(f"{url}?last={last}")
        assert (status, tail, headers["Leveret-Offset"]) == (200, body[begins:], str(begins)), last
        etags.add(headers["ETag"])
    assert len(etags) == 5  # one for each beginning
    # a range of a tail counts from its beginning
    status, headers, part = await stage.get(url + "?last=8", Range="bytes=1-2")
    assert (status, part, headers["Content-Range"]) == (206, b"hr", "bytes 1-2/6")
    status, headers, told = await stage.get(url + "?last=x")
    assert (status, told) == (400, b"last: expected a number of bytes, as 4096, 128KiB or 1MiB\n")
    assert headers["Content-Security-Policy"].startswith("sandbox")
    etag = f'"{sha256(body)}"'
    assert (await stage.get(url, If_Match='"other"'))[0] == 412
    assert (await stage.get(url, If_Match=f'"other", {etag}'))[0] == 200
    # several ranges are answered with the whole
    assert (await stage.get(url, Range="bytes=0-1,3-4"))[::2] == (200, body)


async def test_private_jobs_are_served_by_signed_links_alone(stage: Stage) -> None:
    sink = await stage.logsink(logs_url=None)
    base = stage.url(sink)
    for job, visibility in ((31, Visibility.PRIVATE), (32, Visibility.UNLISTED)):
        await stage.dispatcher.started(facts(job, visibility=visibility), 1, "w1")
        await stage.w1.log(job, 1, "build", BODY)
        await stage.w1.log(job, 1, "test", BODY)
        await stage.w1.artifact(job, 1, 0, "hare.tar", [(0, BODY)], BODY)
    await stage.until("select count(*) = 6 from stream where state = 'sealed'")

    async def ask(**asked: Any) -> Any:
        reply = await stage.command(keys.command("links", "alice"), AskLinks(**asked))
        return unpack(reply.body, reply.type)

    # the path alone, as events and mails have it, is nothing that is there
    paths = [log_path(31, LINK, 1, "build"), artifact_path(31, LINK, 1, 0, "hare.tar")]
    for path in (*paths, paths[0] + "?follow", paths[0] + "?last=1"):
        assert (await stage.get(base + path))[::2] == (404, b"404: Not Found")
    reply = await ask(job=31, seconds=60)
    assert isinstance(reply, LinksReply)
    assert reply.expires_at is not None
    assert abs((reply.expires_at - datetime.now(UTC)).total_seconds() - 60) < LIMIT
    log, other = reply.logs
    (artifact,) = reply.artifacts
    assert (log.task, log.state, log.bytes, log.sha256) == ("build", "sealed", len(BODY), sha256(BODY))
    assert (artifact.name, artifact.bytes, artifact.sha256) == ("hare.tar", len(BODY), sha256(BODY))
    for link in (log.url, other.url, artifact.url):
        assert (await stage.get(link))[::2] == (200, BODY)
        assert (await stage.get(link, Range="bytes=-3"))[::2] == (206, BODY[-3:])
    assert (await stage.get(log.url + "&last=4"))[2] == BODY[-4:]
    reader = LogReader(log.url + "&follow")
    async with asyncio.timeout(LIMIT):
        await reader.read_through(stage.http)
    assert bytes(reader.body) == BODY
    # each opens one path, in one form
    signature = log.url.partition("?")[2]
    later = re.sub(r"expires=\d+", "expires=99999999999", signature)
    for path, query in (
        (log_path(31, LINK, 1, "test"), signature),
        (artifact_path(31, LINK, 1, 0, "hare.tar"), signature),
        (log_path(32, LINK, 1, "nothing"), signature),
        (log_path(31, LINK[:-1] + "x", 1, "build"), signature),
        (paths[0], later),
        (paths[0], signature + "x"),
        (paths[0], signature.partition("&")[0]),
        (paths[0], signature.partition("&")[2]),
    ):
        assert (await stage.get(f"{base}{path}?{query}"))[::2] == (404, b"404: Not Found"), (path, query)
    # a real one that is too old says so; nobody else has one
    old = Signer(LINK_KEY).query(paths[0], 1_000_000)
    status, _, told = await stage.get(base + paths[0] + old)
    assert (status, told) == (403, b"this link has expired; `leveret links` gives a new one\n")

    unsigned = await ask(job=32)
    assert (unsigned.expires_at, unsigned.logs[0].url) == (None, base + log_path(32, LINK, 1, "build"))
    assert (await ask(job=32, attempt=7)).logs == ()
    await stage.dispatcher.started(facts(34, owner="bob"), 1, "w1")
    await stage.until("select count(*) = 3 from job")
    for foreign in (34, 99):
        refused = await ask(job=foreign)
        assert isinstance(refused, CommandFailed)
        assert refused.code == "not-found"


async def test_without_a_key_nothing_of_private_jobs_is_served(stage: Stage) -> None:
    sink = await stage.logsink(link_key=None)
    await stage.dispatcher.started(facts(33, visibility=Visibility.PRIVATE), 1, "w1")
    await stage.w1.log(33, 1, "build", BODY)
    await stage.events.log_event()
    path = log_path(33, LINK, 1, "build")
    for query in ("", Signer(LINK_KEY).query(path, 2**40)):
        assert (await stage.get(stage.url(sink) + path + query))[0] == 404
    reply = await stage.command(keys.command("links", "alice"), AskLinks(job=33))
    failed = unpack(reply.body, reply.type)
    assert isinstance(failed, CommandFailed)
    assert (failed.code, "link_key" in failed.message) == ("unavailable", True)


async def test_tail_has_every_byte_once_in_order(stage: Stage) -> None:
    await stage.logsink()
    body = bytes(range(256)) * 1_000
    await stage.w1.chunk(9, 1, "build", 0, body[:1_000])
    await stage.until("select contiguous = 1000 from stream")
    assert stage.tail.empty()
    await stage.dispatcher.started(facts(9, visibility=Visibility.PUBLIC), 1, "w1")
    chunk, first = await stage.tail.tail()
    assert (chunk.job, chunk.attempt, chunk.task, chunk.offset, first) == (9, 1, "build", 0, body[:1_000])
    late, rest = pieces(body[1_000:], 10_000)[0], pieces(body[1_000:], 10_000)[1:]
    for offset, part in [*rest, late]:
        await stage.w1.chunk(9, 1, "build", 1_000 + offset, part)
    await stage.w1.chunk(9, 1, "build", len(body), b"", whole=body)
    seen = bytearray(first)
    while not (chunk := await stage.tail.next()).headers["end"]:
        assert chunk.routing_key == "public.alice.9.build"
        if chunk.body:  # else it says how far the log reaches
            assert chunk.headers["offset"] == len(seen)
            seen += chunk.body
    assert chunk.headers["offset"] == len(body)
    assert bytes(seen) == body
    assert (await stage.events.log_event()).status == "sealed"


async def test_history(stage: Stage) -> None:
    await stage.logsink()
    await stage.dispatcher.started(facts(4), 1, "w1")
    await stage.w1.log(4, 1, SETUP_LOG, b"set up\n")
    await stage.w1.log(4, 1, "build", BODY)
    assert {event.status for event in await stage.events.log_events(2)} == {"sealed"}
    await stage.dispatcher.started(facts(4), 2, "w2")
    await stage.dispatcher.started(facts(5, owner="bob"), 1, "w1")
    await stage.dispatcher.started(facts(6, owner="bob", visibility=Visibility.PUBLIC), 1, "w1")
    await stage.until("select count(*) = 4 from attempt")

    async def ask(**asked: Any) -> Any:
        reply = await stage.command(keys.command("history", "alice"), LogHistory(**asked))
        return unpack(reply.body, reply.type)

    reply = await ask(job=4, attempt=1, task="build", offset=5, limit=10)
    assert isinstance(reply, HistoryReply)
    assert base64.b64decode(reply.data or "") == BODY[5:15]
    assert [(log.task, log.state, log.bytes, log.sha256) for log in reply.logs] == [
        (SETUP_LOG, "sealed", 7, sha256(b"set up\n")),
        ("build", "sealed", 20, sha256(BODY)),
    ]
    assert (await ask(job=4, attempt=1, task="build", offset=99)).data == ""
    latest = await ask(job=4, task="build")
    assert (latest.attempt, latest.logs, latest.data) == (2, (), None)
    assert (await ask(job=6)).attempt == 1
    for foreign in (5, 99):
        reply = await ask(job=foreign)
        assert isinstance(reply, CommandFailed)
        assert reply.code == "not-found"
    reply = await stage.command(keys.command("history", "alice"), CancelJob(job=4))
    assert unpack(reply.body, reply.type) == CommandFailed(
        code="bad-request", message="expected command.history.v1, got command.cancel.v1"
    )
    assert (await stage.dead.next()).routing_key == "leveret.logsink.history"


async def test_readers_are_served_while_the_broker_lets_nobody_in(stage: Stage) -> None:
    """HTTP needs the database alone."""
    sink = await stage.logsink()
    await stage.dispatcher.started(facts(2), 1, "w1")
    await stage.w1.log(2, 1, "build", BODY)
    assert (await stage.events.log_event()).status == "sealed"
    await stage.vhost.api("DELETE", f"permissions/{stage.vhost.name}/logsink")
    # the broker closes the channel on which logsink would answer, and then lets it in no more
    await stage.ask(keys.command("history", "alice"), LogHistory(job=2))
    async with asyncio.timeout(LIMIT):
        while '"waiting"' not in sink.log.read_text():
            await asyncio.sleep(0.05)
    assert (await stage.get(stage.url(sink) + log_path(2, LINK, 1, "build")))[2] == BODY
    assert (await stage.get(stage.url(sink) + "/health"))[0] == 200
