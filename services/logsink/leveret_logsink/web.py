"""Logs and artifacts over HTTP. A link holds the job's unguessable word, and a private job's a signature besides;
whatever is not exactly right is one same 404.

Nothing of a request reaches the file system: it names a row, and the row names the file.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from urllib.parse import quote

from aiohttp import web
from aiohttp.typedefs import Handler

from leveret_logsink import http_rules, sse
from leveret_logsink.catalogue import Catalogue
from leveret_logsink.live import Full, Live
from leveret_logsink.metrics import HTTP_ANSWERS
from leveret_logsink.signing import Signer, same_word
from leveret_logsink.storage import Storage
from leveret_logsink.streams import Stream
from leveret_proto.base import JobFacts, Visibility
from leveret_proto.links import artifact_path, log_path
from leveret_proto.tails import skipped
from leveret_runtime.away import Away

#: Bytes sent at once, and seconds a reader may take for them.
BLOCK = 256 * 1024
SEND_LIMIT = 60.0
#: Bytes within which a tail looks for the start of a line.
LINE_SEARCH = 64 * 1024
#: Seconds that requests under way get when the service stops.
SHUTDOWN_LIMIT = 5.0

_METHODS = ("GET", "HEAD")
_NUMBER = re.compile(r"[1-9][0-9]{0,17}|0", re.ASCII)

#: With every answer: nothing served here is ever run or shown as part of a page.
_GUARDS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Referrer-Policy": "no-referrer",
    "Server": "leveret",
}


class Site:
    """The handlers. Without a signer nothing of private jobs is served."""

    def __init__(self, catalogue: Catalogue, storage: Storage, live: Live, signer: Signer | None) -> None:
        self._catalogue = catalogue
        self._storage = storage
        self._live = live
        self._signer = signer

    def application(self) -> web.Application:
        app = web.Application(middlewares=[_get_alone, _unavailable])
        app.on_response_prepare.append(_guard)
        app.on_shutdown.append(self._end_streams)
        for path, handler in (
            ("/health", _health),
            ("/jobs/{job}/{link}/{attempt}/logs/{task}", self.log),
            ("/jobs/{job}/{link}/{attempt}/artifacts/{index}/{name}", self.artifact),
            ("/{other:.*}", _nothing),
        ):
            # no request is left to the library's own routes, which stumble over some headers
            app.router.add_route("*", path, handler, expect_handler=_expect)
        return app

    async def _end_streams(self, _: web.Application) -> None:
        self._live.close()

    async def log(self, request: web.Request) -> web.StreamResponse:
        """Serve a log as far as it is there without a hole, or its end, or live.

        `Leveret-Log` says `open`, `sealed` or `gap`; `Leveret-Offset` where in the log a tail begins.
        """
        attempt, task = _number(request.match_info["attempt"]), request.match_info["task"]
        if not task.isprintable():  # a task's name is (chunks.py), and PostgreSQL refuses even to look for a NUL
            raise web.HTTPNotFound
        job = await self._admit(request, attempt, lambda facts: log_path(facts.job, facts.link, attempt, task))
        stream = await self._catalogue.log(job, attempt, task)
        if stream is None:
            raise web.HTTPNotFound
        headers: dict[str, str] = {"Leveret-Log": stream.state, "Vary": "Accept"}
        live = http_rules.live(request.method, request.headers.get("Accept"), request.query)
        try:
            last = http_rules.last(request.query)
            had = sse.resume(request.headers.get("Last-Event-ID")) if live else None
        except sse.Ended:
            return web.Response(status=204)
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from None
        if live:
            start = had if had is not None else 0 if last is None else await self._tail_start(stream, last)
            return await self._follow(request, stream, start, headers)
        headers["Content-Type"] = "text/plain; charset=utf-8"
        start = 0
        if last is not None:
            start = await self._tail_start(stream, last)
            headers["Leveret-Offset"] = str(start)
        return await self._serve(request, stream, start, headers)

    async def artifact(self, request: web.Request) -> web.StreamResponse:
        """Serve an artifact that is proven whole, for saving, never for showing."""
        attempt, index = _number(request.match_info["attempt"]), _number(request.match_info["index"])
        name = request.match_info["name"]
        if not name.isprintable():
            raise web.HTTPNotFound
        job = await self._admit(
            request, attempt, lambda facts: artifact_path(facts.job, facts.link, attempt, index, name)
        )
        stream = await self._catalogue.artifact(job, attempt, index)
        if stream is None or stream.state != "sealed" or stream.name != name:
            raise web.HTTPNotFound
        disposition = f"attachment; filename*=UTF-8''{quote(name, safe='')}"  # RFC 6266
        headers = {"Content-Type": "application/octet-stream", "Content-Disposition": disposition}
        return await self._serve(request, stream, 0, headers)

    async def _admit(self, request: web.Request, attempt: int, path: Callable[[JobFacts], str]) -> int:
        """Give the job where the link's word is the job's, and the link is signed where the job is private."""
        job = _number(request.match_info["job"])
        facts = await self._catalogue.job(job)
        same = same_word("" if facts is None else facts.link, request.match_info["link"])
        if facts is None or not same or not 0 < attempt < 2**31:
            raise web.HTTPNotFound
        if facts.visibility is Visibility.PRIVATE:
            self._check_signature(request, path(facts))
        return job

    def _check_signature(self, request: web.Request, path: str) -> None:
        expires, signature = request.query.get("expires", ""), request.query.get("signature", "")
        verdict = "bad" if self._signer is None else self._signer.judge(path, expires, signature, time.time())
        if verdict == "expired":  # whoever has such a link was given it: nothing is given away
            raise web.HTTPForbidden(text="this link has expired; `leveret links` gives a new one\n")
        if verdict == "bad":
            raise web.HTTPNotFound

    async def _follow(
        self, request: web.Request, stream: Stream, start: int, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        """Serve a log live, from `start` on."""
        try:
            return await self._live.serve(request, stream, start, {**headers, "Cache-Control": "no-store"})
        except Full:
            return web.Response(status=503, headers={"Retry-After": "30"}, text="too many live readers\n")

    async def _tail_start(self, stream: Stream, last: int) -> int:
        """Give where the last `last` bytes begin, or the first line within them."""
        size = stream.held.stored.contiguous
        start = size - last
        if start <= 0 or last == 0:
            return max(start, 0)
        length = min(LINE_SEARCH, last + 1)
        block = await asyncio.to_thread(self._storage.read, stream.key, start - 1, length)
        return start - 1 + skipped(block, ends=length > last)

    async def _serve(
        self, request: web.Request, stream: Stream, base: int, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        """Serve what is stored from `base` on, or the part of it that is asked for."""
        stored, sealed = stream.held.stored.contiguous, stream.state == "sealed"
        size = stored - base
        # stored bytes never change, so the first n of a growing log are told apart by n: strong in both cases
        state = stream.held.end.sha256 if sealed and stream.held.end else f"open-{stored}"
        etag = f'"{state}"' if base == 0 else f'"{state}-from-{base}"'
        cache = "private, max-age=31536000, immutable" if sealed else "no-cache"
        common = {**headers, "ETag": etag, "Cache-Control": cache, "Accept-Ranges": "bytes"}
        if http_rules.refused(request.headers.get("If-Match"), etag):
            return web.Response(status=412, headers={"ETag": etag})
        if http_rules.unchanged(request.headers.get("If-None-Match"), etag):
            return web.Response(status=304, headers=common)
        asked = request.headers.get("Range")
        if request.headers.get("If-Range", etag) != etag:
            asked = None
        try:
            part = http_rules.wanted(asked, size)
        except http_rules.Unsatisfiable:
            return web.Response(status=416, headers={"Content-Range": f"bytes */{size}"})
        response = web.StreamResponse(status=200 if part is None else 206, headers=common)
        start, end = part or (0, size)
        if part is not None:
            response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        response.content_length = end - start
        await response.prepare(request)
        if request.method != "HEAD":
            try:
                await self._send(response, stream, base + start, base + end)
            except (Away, TimeoutError, EOFError):
                # the header is out: all that can still be told is that the body is cut short
                if request.transport is not None:
                    request.transport.abort()
        return response

    async def _send(self, response: web.StreamResponse, stream: Stream, start: int, end: int) -> None:
        while start < end:
            body = await asyncio.to_thread(self._storage.read, stream.key, start, min(BLOCK, end - start))
            if not body:
                raise EOFError(f"{stream.key}: the file lost bytes that were committed")
            async with asyncio.timeout(SEND_LIMIT):
                await response.write(body)
            start += len(body)


def _number(word: str) -> int:
    if not _NUMBER.fullmatch(word):
        raise web.HTTPNotFound
    return int(word)


async def _expect(_: web.Request) -> None:
    """Ignore `Expect`: what is served here takes no body."""


async def _nothing(_: web.Request) -> web.StreamResponse:
    raise web.HTTPNotFound


async def _health(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


@web.middleware
async def _get_alone(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.method not in _METHODS:
        raise web.HTTPMethodNotAllowed(request.method, _METHODS)
    return await handler(request)


@web.middleware
async def _unavailable(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer 503 while the database or the storage is away."""
    try:
        return await handler(request)
    except Away:
        return web.Response(status=503, headers={"Retry-After": "5"}, text="try again later\n")


async def _guard(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_GUARDS)
    HTTP_ANSWERS.labels(response.status).inc()
