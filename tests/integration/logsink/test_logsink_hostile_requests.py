"""Hostile requests to a real logsink: never a fault of the server, never a byte that is not the stream's."""

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from leveret_proto.base import Visibility
from leveret_proto.links import artifact_path, log_path
from tests.integration.logsink.stage import LIMIT, LINK, Stage, facts

LOG = b"open\nlog\n" * 50
SEALED = bytes(range(256)) * 3
HIDDEN = b"what nobody may see " * 20

_WORDS = st.sampled_from(
    ["jobs", "1", "2", "3", "0", "-1", "01", "9" * 19, LINK, LINK[:-1], "logs", "artifacts", "build", "sealed", "a.tar",
     "..", ".", "", "%2e%2e", "%2F", "%00", "%FF", "%ED%A0%80", "é", "%C3%A9", "%", "%zz", "a" * 300, "etc", "passwd",
     "@setup", "\\", ";", "*", "health"]
)  # fmt: skip
_PATHS = st.one_of(
    st.sampled_from([log_path(job, LINK, 1, task) for job in (1, 2) for task in ("build", "sealed")]),
    st.sampled_from([log_path(3, LINK, 1, "build"), artifact_path(1, LINK, 1, 0, "a.tar")]),
    st.lists(_WORDS, max_size=8).map(lambda words: "/" + "/".join(words)),
    st.tuples(_WORDS, _WORDS, _WORDS, _WORDS).map(lambda w: f"/jobs/{w[0]}/{w[1]}/1/logs/{w[2]}/{w[3]}"),
    st.tuples(_WORDS, _WORDS, _WORDS).map(lambda w: f"/jobs/{w[0]}/{LINK}/{w[1]}/logs/{w[2]}"),
    st.tuples(_WORDS, _WORDS).map(lambda w: f"/jobs/1/{LINK}/1/artifacts/{w[0]}/{w[1]}"),
)
_NUMBERS = st.one_of(st.integers(-5, 1200).map(str), st.sampled_from(["", "9" * 18, "9" * 40, "x", "٣", "1e3", "0x1"]))
_QUERIES = st.lists(
    st.tuples(
        st.sampled_from(["last", "expires", "signature", "follow", "", "last[]", "%FF"]),
        st.one_of(_NUMBERS, st.sampled_from(["1KiB", "%00", "%ED%A0%80", "A" * 43, "&=&"])),
    ).map("=".join),
    max_size=3,
).map("&".join)
_RAW = st.text(st.characters(min_codepoint=1, max_codepoint=255, exclude_characters="\r\n"), max_size=30)
_HEADERS = st.lists(
    st.one_of(
        st.tuples(st.just("Range"), st.builds("bytes={}-{}".format, _NUMBERS, _NUMBERS)),
        st.tuples(
            st.sampled_from(
                ["Range", "If-Range", "If-Match", "If-None-Match", "Last-Event-ID", "Accept", "Accept-Encoding",
                 "If-Modified-Since", "Expect", "Connection", "X-Forwarded-For"]
            ),
            _RAW,
        ),
        st.tuples(st.just("Last-Event-ID"), st.one_of(_NUMBERS, _NUMBERS.map("{}-end".format))),
        st.just(("Accept", "text/event-stream")),
    ),
    max_size=4,
)  # fmt: skip
_METHODS = st.sampled_from(["GET"] * 6 + ["HEAD", "POST", "OPTIONS", "PUT", "TRACE", "G"])


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


async def test_hostile_requests_get_nothing_but_the_streams_bytes(stage: Stage) -> None:
    sink = await stage.logsink()
    for job, visibility in ((1, Visibility.UNLISTED), (2, Visibility.PUBLIC), (3, Visibility.PRIVATE)):
        await stage.dispatcher.started(facts(job, visibility=visibility), 1, "w1")
        body = HIDDEN if visibility is Visibility.PRIVATE else LOG
        await stage.w1.chunk(job, 1, "build", 0, body)
        await stage.w1.log(job, 1, "sealed", HIDDEN if visibility is Visibility.PRIVATE else SEALED)
    await stage.w1.artifact(1, 1, 0, "a.tar", [(0, SEALED)], SEALED)
    await stage.w1.artifact(1, 1, 1, "half", [(0, HIDDEN)], HIDDEN + b"x")  # never whole, so never served
    await stage.until("select count(*) = 4 from stream where state = 'sealed'")
    await stage.until("select count(*) = 8 from stream join attempt using (job, attempt) where contiguous > 0")
    url = URL(stage.url(sink))
    host, port = str(url.host), url.port or 0
    tried: list[tuple[str, str, list[tuple[str, str]]]] = []

    @settings(max_examples=150, database=None, suppress_health_check=list(HealthCheck))
    @given(_METHODS, _PATHS, _QUERIES, _HEADERS)
    def draw(method: str, path: str, query: str, headers: list[tuple[str, str]]) -> None:
        tried.append((method, f"{path}?{query}" if query else path, headers))

    draw()
    tried += [(method, path, [("Expect", "\xff\x80")]) for method in ("GET", "POST") for path in ("/health", "/x")]
    for method, target, headers in tried:
        answer = await _ask(host, port, method, target, headers)
        _check(method, answer, (method, target, headers))
    assert sink.running
    assert "Traceback" not in sink.log.read_text()
    # the requests were not all refused at the door
    answers = [await _ask(host, port, "GET", log_path(job, LINK, 1, "build"), []) for job in (1, 2)]
    assert [answer.body for answer in answers] == [LOG, LOG]


def _check(method: str, answer: Answer, asked: object) -> None:
    assert answer.status < 500, asked
    if method == "HEAD" or answer.status in (204, 304):
        assert answer.body == b""
    elif answer.headers.get("content-type") == "text/event-stream":
        pieces = re.findall(rb"^data: ([A-Za-z0-9+/=]+)$", answer.body, re.MULTILINE)
        told = b"".join(base64.b64decode(piece, validate=True) for piece in pieces)
        assert any(told in log for log in (LOG, SEALED))
    elif answer.status in (200, 206) and answer.body != b'{"status": "ok"}':
        assert any(answer.body in log for log in (LOG, SEALED)), answer
        assert answer.status == 200 or re.fullmatch(r"bytes \d+-\d+/\d+", answer.headers["content-range"])
    if answer.status in (200, 204, 206, 304, 403, 404, 405, 412, 416):
        assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert b"what nobody" not in answer.body


async def _ask(host: str, port: int, method: str, target: str, headers: list[tuple[str, str]]) -> Answer:
    """One request as raw bytes, on a connection of its own; of a stream that stays open, what comes at first."""
    lines = [f"{method} {target} HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in headers)]
    async with asyncio.timeout(LIMIT), _connected(host, port) as (reader, writer):
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1", "replace"))
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *rest = head.split("\r\n")[:-2]
        status = int(first.split(" ")[1])
        if status == 100:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *rest = head.split("\r\n")[:-2]
            status = int(first.split(" ")[1])
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
        if method == "HEAD" or status in (204, 304):
            body = b""
        elif fields.get("content-type") == "text/event-stream":
            body = b""
            try:
                async with asyncio.timeout(0.1):
                    while block := await reader.read(65536):
                        body += block
            except TimeoutError:
                pass
            body = re.sub(rb"(?:\A|\r\n)[0-9a-f]+\r\n", b"", body)  # chunks
        else:
            body = await reader.readexactly(int(fields["content-length"]))
        return Answer(status, fields, body)


@asynccontextmanager
async def _connected(host: str, port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield reader, writer
    finally:
        writer.close()
