"""Live readers over HTTP: every byte from where they begin, whoever stores it, until the log has ended."""

import asyncio
import os
import re
import socket
from contextlib import aclosing

from leveret_proto.links import log_path
from tests.integration.logsink.stage import LIMIT, LINK, Stage, facts, sha256
from tests.support.event_stream import LogReader

#: Everything that could be taken for a part of the stream.
HEAD = b"data: \r\rid: 7\n\n\xff\xfe\x00\n"


async def test_live_readers_have_every_byte_from_their_beginning_to_the_end(stage: Stage) -> None:
    sink = await stage.logsink()
    url = stage.url(sink) + log_path(3, LINK, 1, "build")
    await stage.dispatcher.started(facts(3), 1, "w1")
    await stage.w1.chunk(3, 1, "build", 0, HEAD)
    await stage.until("select contiguous = $1 from stream", len(HEAD))
    whole, joined, tail = LogReader(url), LogReader(url), LogReader(url + "?follow&last=5")
    body = HEAD + os.urandom(200_000)
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        async with aclosing(whole.read(stage.http)) as pieces:
            assert await anext(pieces) == HEAD
            joined.last_id = "4"
            group.create_task(joined.read_through(stage.http))
            group.create_task(tail.read_through(stage.http))
            await stage.w1.chunk(3, 1, "build", 100_000, body[100_000:])  # a hole before it: nothing to tell yet
            await stage.w1.chunk(3, 1, "build", len(HEAD), body[len(HEAD) : 100_000], whole=body)
            async for _ in pieces:
                pass
    assert (whole.start, bytes(whole.body)) == (0, body)
    assert (joined.start, bytes(joined.body)) == (4, body[4:])
    assert tail.start is not None
    assert bytes(tail.body) == body[tail.start :]
    told = {"state": "sealed", "bytes": len(body), "sha256": sha256(body)}
    assert whole.end == joined.end == tail.end == told
    # a browser comes again after the end, and is told that there is nothing more
    async with asyncio.timeout(LIMIT):
        assert [piece async for piece in whole.read(stage.http)] == []
    assert whole.statuses == [200, 204]


async def test_a_log_that_ended_is_streamed_to_its_end(stage: Stage) -> None:
    sink = await stage.logsink()
    url = stage.url(sink) + log_path(4, LINK, 1, "build")
    await stage.dispatcher.started(facts(4), 1, "w1")
    await stage.w1.log(4, 1, "build", b"one\ntwo\n")
    await stage.events.log_event()
    for last, begins in (("", 0), ("&last=4", 4), ("&last=5", 4), ("&last=3", 5), ("&last=0", 8), ("&last=1MiB", 0)):
        reader = LogReader(f"{url}?follow{last}")
        async with asyncio.timeout(LIMIT):
            await reader.read_through(stage.http)
        assert (reader.end or {})["state"] == "sealed"
        assert bytes(reader.body) == b"one\ntwo\n"[begins:], last
    ahead = LogReader(url, last_id="9")  # it was told more than there is now: what was wrong may be forgotten
    async with asyncio.timeout(LIMIT):
        await ahead.read_through(stage.http)
    assert (bytes(ahead.body), (ahead.end or {})["bytes"]) == (b"", 8)


async def test_a_gap_ends_a_stream(stage: Stage) -> None:
    sink = await stage.logsink(end_wait="0.1")
    await stage.dispatcher.started(facts(5), 1, "w1")
    await stage.w1.chunk(5, 1, "build", 0, b"begun")
    await stage.until("select contiguous = 5 from stream")
    reader = LogReader(stage.url(sink) + log_path(5, LINK, 1, "build"))
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        group.create_task(reader.read_through(stage.http))
        await stage.dispatcher.ended(facts(5), 1, "w1", "build")
    assert (bytes(reader.body), reader.end) == (b"begun", {"state": "gap", "bytes": 5, "sha256": None})


async def test_what_another_logsink_stores_is_told_too(stage: Stage) -> None:
    first = await stage.logsink()
    second = await stage.logsink()
    await stage.dispatcher.started(facts(6), 1, "w1")
    await stage.w1.chunk(6, 1, "build", 0, b"a")
    await stage.until("select contiguous = 1 from stream")
    readers = [LogReader(stage.url(sink) + log_path(6, LINK, 1, "build")) for sink in (first, second)]
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        for reader in readers:
            group.create_task(reader.read_through(stage.http))
        await stage.w1.chunk(6, 1, "build", 1, b"b", whole=b"ab")
    assert [bytes(reader.body) for reader in readers] == [b"ab", b"ab"]


async def test_streams_end_with_the_service_and_go_on_with_the_next(stage: Stage) -> None:
    port = str(_free_port())
    sink = await stage.logsink(port=port)
    await stage.dispatcher.started(facts(7), 1, "w1")
    await stage.w1.chunk(7, 1, "build", 0, b"first ")
    await stage.until("select contiguous = 6 from stream")
    reader = LogReader(stage.url(sink) + log_path(7, LINK, 1, "build"))
    async with asyncio.timeout(LIMIT):
        async with aclosing(reader.read(stage.http)) as pieces:
            assert await anext(pieces) == b"first "
            await sink.terminate()
            assert [piece async for piece in pieces] == []  # in order: nothing raised
        await stage.w1.chunk(7, 1, "build", 6, b"last", whole=b"first last")
        await stage.logsink(port=port)
        await reader.read_through(stage.http)
    assert bytes(reader.body) == b"first last"
    assert (reader.end or {})["sha256"] == sha256(b"first last")


async def test_a_log_that_is_removed_ends_its_streams(stage: Stage) -> None:
    sink = await stage.logsink()
    await stage.dispatcher.started(facts(13), 1, "w1")
    await stage.w1.chunk(13, 1, "build", 0, b"x")
    await stage.until("select contiguous = 1 from stream")
    reader = LogReader(stage.url(sink) + log_path(13, LINK, 1, "build"))
    async with asyncio.timeout(LIMIT), aclosing(reader.read(stage.http)) as pieces:
        assert await anext(pieces) == b"x"
        await stage.until("delete from stream returning true")
        assert [piece async for piece in pieces] == []
        assert [piece async for piece in reader.read(stage.http)] == []
    assert (reader.end, reader.statuses) == (None, [200, 404])


async def test_readers_are_as_many_as_may_be_and_one_that_goes_makes_room(stage: Stage) -> None:
    sink = await stage.logsink(live_readers="4")
    urls = []
    for job in (8, 9):
        await stage.dispatcher.started(facts(job), 1, "w1")
        await stage.w1.chunk(job, 1, "build", 0, b"x")
        urls.append(stage.url(sink) + log_path(job, LINK, 1, "build"))
    await stage.until("select count(*) = 2 from stream join attempt using (job, attempt)")
    async with asyncio.timeout(LIMIT), aclosing(LogReader(urls[0]).read(stage.http)) as pieces:
        await anext(pieces)
        status, headers, body = await stage.get(urls[0] + "?follow")  # a job has a quarter of them
        assert (status, headers["Retry-After"], body) == (503, "30", b"too many live readers\n")
        async with aclosing(LogReader(urls[1]).read(stage.http)) as others:
            assert await anext(others) == b"x"
    async with asyncio.timeout(LIMIT):
        while True:  # the server hears of the closed connection in its own time
            reader = LogReader(urls[0])
            async with aclosing(reader.read(stage.http)) as pieces:
                async for piece in pieces:
                    assert piece == b"x"
                    return
            assert reader.statuses == [503]


async def test_a_reader_who_stalls_slows_nobody_and_costs_no_memory(stage: Stage) -> None:
    sink = await stage.logsink()
    address = re.fullmatch(r"http://(.*):(\d+)", stage.url(sink))
    assert address is not None
    path = log_path(10, LINK, 1, "build")
    await stage.dispatcher.started(facts(10), 1, "w1")
    body = os.urandom(1024) * 40_000
    await stage.w1.chunk(10, 1, "build", 0, body[:1000])
    await stage.until("select contiguous = 1000 from stream")
    stalled = []
    for _ in range(10):
        reader, writer = await asyncio.open_connection(address[1], int(address[2]), limit=1024)
        writer.write(f"GET {path}?follow HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        stalled.append(writer)
    good = LogReader(stage.url(sink) + path)
    before = _memory(sink.pid)
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        group.create_task(good.read_through(stage.http))
        size = 250_000
        for offset in range(1000, len(body), size):
            await stage.w1.chunk(10, 1, "build", offset, body[offset : offset + size])
        await stage.w1.chunk(10, 1, "build", len(body), b"", whole=body)
    assert bytes(good.body) == body
    # ten who stall are sent what sockets hold, and nothing is kept for them
    assert _memory(sink.pid) - before < 40 * 1024
    for writer in stalled:
        writer.close()


async def test_a_reader_who_stalls_for_too_long_is_dropped(stage: Stage) -> None:
    sink = await stage.logsink(live_stall="0.3")
    url = stage.url(sink) + log_path(12, LINK, 1, "build")
    await stage.dispatcher.started(facts(12), 1, "w1")
    body = os.urandom(1024) * 8_000  # more than the sockets between us hold
    for offset in range(0, len(body), 250_000):
        await stage.w1.chunk(12, 1, "build", offset, body[offset : offset + 250_000])
    await stage.until("select contiguous = $1 from stream", len(body))
    reader = LogReader(url)
    async with asyncio.timeout(LIMIT):
        async with aclosing(reader.read(stage.http)) as pieces:
            await anext(pieces)
            while _connections(sink.pid, url):
                await asyncio.sleep(0.05)
        # it comes again, and goes on where it was
        await stage.w1.chunk(12, 1, "build", len(body), b"", whole=body)
        await reader.read_through(stage.http)
    assert bytes(reader.body) == body


async def test_what_is_no_live_request_is_refused(stage: Stage) -> None:
    sink = await stage.logsink()
    url = stage.url(sink) + log_path(11, LINK, 1, "build")
    await stage.dispatcher.started(facts(11), 1, "w1")
    await stage.w1.chunk(11, 1, "build", 0, b"abc")
    await stage.until("select contiguous = 3 from stream")
    for id_ in ("x", "-1", "1-2", "9" * 19):
        status, _, body = await stage.get(url + "?follow", Last_Event_ID=id_)
        assert (status, body.startswith(b"Last-Event-ID: ")) == (400, True)
    assert (await stage.get(url + "?follow&last=x"))[0] == 400
    status, headers, body = await stage.get(url + "?follow", method="HEAD")
    assert (status, headers["Content-Type"], body) == (200, "text/plain; charset=utf-8", b"")
    assert (await stage.get(stage.url(sink) + log_path(11, LINK, 1, "other") + "?follow"))[0] == 404


def _memory(pid: int) -> int:
    """Resident KiB."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def _connections(pid: int, url: str) -> int:
    """Established connections to the port of `url`, of the process that listens there."""
    port = int(url.split(":")[2].split("/")[0])
    with open(f"/proc/{pid}/net/tcp") as table:
        rows = [line.split() for line in table][1:]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
