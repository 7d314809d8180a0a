"""Readers: HTTP, the live tail, and history over the broker."""

import asyncio
import base64
from typing import Any

from leveret_proto import keys
from leveret_proto.envelope import unpack
from leveret_proto.links import log_path
from leveret_proto.messages import (
    SETUP_LOG,
    CancelJob,
    CommandFailed,
    HistoryReply,
    LogHistory,
    Visibility,
)
from tests.integration.logsink.stage import LIMIT, LINK, Stage, facts, pieces, sha256

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
        assert chunk.headers["offset"] == len(seen)
        assert chunk.routing_key == "public.alice.9.build"
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
