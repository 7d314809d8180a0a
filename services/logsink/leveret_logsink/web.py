"""Logs and artifacts over HTTP. A link holds the job's unguessable word; whatever is not exactly right is one same 404.

Nothing of a request reaches the file system: it names a row, and the row names the file.
"""

import asyncio
import hmac
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import quote

from aiohttp import web
from aiohttp.typedefs import Handler

from leveret_logsink import http_rules
from leveret_logsink.catalogue import Catalogue
from leveret_logsink.storage import Storage
from leveret_logsink.streams import Stream
from leveret_runtime.away import Away

#: Bytes sent at once, and seconds a reader may take for them.
BLOCK = 256 * 1024
SEND_LIMIT = 60.0
#: Seconds that requests under way get when the service stops.
SHUTDOWN_LIMIT = 5.0

_NUMBER = re.compile(r"[1-9][0-9]{0,17}|0", re.ASCII)

_GUARDS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Referrer-Policy": "no-referrer",
    "Accept-Ranges": "bytes",
}


class Site:
    """The handlers."""

    def __init__(self, catalogue: Catalogue, storage: Storage) -> None:
        self._catalogue = catalogue
        self._storage = storage

    def application(self) -> web.Application:
        app = web.Application(middlewares=[_unavailable])
        app.router.add_get("/health", _health)
        app.router.add_get("/jobs/{job}/{link}/{attempt}/logs/{task}", self.log)
        app.router.add_get("/jobs/{job}/{link}/{attempt}/artifacts/{index}/{name}", self.artifact)
        return app

    async def log(self, request: web.Request) -> web.StreamResponse:
        """Serve a log as far as it is there without a hole; `Leveret-Log` says `open`, `sealed` or `gap`."""
        job, attempt = await self._admit(request)
        task = request.match_info["task"]
        # a task's name is printable (chunks.py), and PostgreSQL refuses even to look for a NUL
        stream = await self._catalogue.log(job, attempt, task) if task.isprintable() else None
        if stream is None:
            raise web.HTTPNotFound
        headers = {"Content-Type": "text/plain; charset=utf-8", "Leveret-Log": stream.state}
        return await self._serve(request, stream, headers)

    async def artifact(self, request: web.Request) -> web.StreamResponse:
        """Serve an artifact that is proven whole, for saving, never for showing."""
        job, attempt = await self._admit(request)
        stream = await self._catalogue.artifact(job, attempt, _number(request.match_info["index"]))
        name = request.match_info["name"]
        if stream is None or stream.state != "sealed" or stream.name != name:
            raise web.HTTPNotFound
        disposition = f"attachment; filename*=UTF-8''{quote(name, safe='')}"  # RFC 6266
        return await self._serve(
            request, stream, {"Content-Type": "application/octet-stream", "Content-Disposition": disposition}
        )

    async def _admit(self, request: web.Request) -> tuple[int, int]:
        """Give job and attempt where the link's word is the job's."""
        job, attempt = _number(request.match_info["job"]), _number(request.match_info["attempt"])
        facts = await self._catalogue.job(job)
        word = "" if facts is None else facts.link
        same = hmac.compare_digest(word.encode(), request.match_info["link"].encode(errors="surrogateescape"))
        if facts is None or not same or not 0 < attempt < 2**31:
            raise web.HTTPNotFound
        return job, attempt

    async def _serve(self, request: web.Request, stream: Stream, headers: Mapping[str, str]) -> web.StreamResponse:
        size, sealed = stream.held.stored.contiguous, stream.state == "sealed"
        # stored bytes never change, so the first n of a growing log are told apart by n: strong in both cases
        etag = f'"{stream.held.end.sha256}"' if sealed and stream.held.end else f'"open-{size}"'
        cache = "private, max-age=31536000, immutable" if sealed else "no-cache"
        common = {**_GUARDS, **headers, "ETag": etag, "Cache-Control": cache}
        if http_rules.unchanged(request.headers.get("If-None-Match"), etag):
            return web.Response(status=304, headers=common)
        asked = request.headers.get("Range")
        if request.headers.get("If-Range", etag) != etag:
            asked = None
        try:
            part = http_rules.wanted(asked, size)
        except http_rules.Unsatisfiable:
            return web.Response(status=416, headers={**_GUARDS, "Content-Range": f"bytes */{size}"})
        response = web.StreamResponse(status=200 if part is None else 206, headers=common)
        start, end = part or (0, size)
        if part is not None:
            response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        response.content_length = end - start
        await response.prepare(request)
        if request.method != "HEAD":
            try:
                await self._send(response, stream, start, end)
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


@asynccontextmanager
async def serving(app: web.Application, host: str, port: int) -> AsyncIterator[str]:
    """Serve `app` for the time of the block, which is given the URL.

    Raises:
        SystemExit: the address can't be listened on; says so on standard error.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_LIMIT)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise SystemExit(f"leveret-logsink: can't listen on {host} port {port}: {error}") from None
        taken = runner.addresses[0][1]
        yield f"http://{f'[{host}]' if ':' in host else host}:{taken}"
    finally:
        await runner.cleanup()


def _number(word: str) -> int:
    if not _NUMBER.fullmatch(word):
        raise web.HTTPNotFound
    return int(word)


async def _health(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


@web.middleware
async def _unavailable(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer 503 while the database or the storage is away."""
    try:
        return await handler(request)
    except Away:
        return web.Response(status=503, headers={"Retry-After": "5"}, text="try again later\n")
