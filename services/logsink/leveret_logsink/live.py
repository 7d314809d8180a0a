"""A log as it grows, over HTTP: sends what is stored, waits for news, ends with the log.

Nothing is kept for a reader but the one piece it is being sent, so that one who stalls costs a connection until it is
dropped, and no other reader anything.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from aiohttp import web

from leveret_logsink import sse
from leveret_logsink.news import News, Watch
from leveret_logsink.storage import Storage
from leveret_logsink.streams import Stream
from leveret_runtime.away import Away

#: Bytes of a log in one event.
PIECE = 64 * 1024
#: Seconds of silence after which a comment is sent.
HEARTBEAT = 15.0
#: Milliseconds after which a reader whose connection was lost comes again.
RETRY = 1000
#: A job has at most this part of all readers.
SHARE = 4


class Full(Exception):
    """There are as many live readers as there may be."""


class Live:
    """Serves event streams."""

    def __init__(self, news: News, storage: Storage, most: int, stall_limit: float) -> None:
        """
        Args:
            most: readers at a time.
            stall_limit: seconds that a reader may take for an event before it is dropped.
        """
        self._news = news
        self._storage = storage
        self._most = most
        self._stall_limit = stall_limit
        self._readers: Counter[int] = Counter()

    @property
    def readers(self) -> int:
        """Readers at present."""
        return self._readers.total()

    def close(self) -> None:
        """End every stream; its reader may come again."""
        self._news.close()

    async def serve(
        self, request: web.Request, stream: Stream, offset: int, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        """Send `stream` from `offset` on until it has ended. Raises Full."""
        with self._seat(stream.key.job), self._news.watching(stream) as watch:
            # for proxies: to be passed on at once
            response = web.StreamResponse(headers={**headers, "X-Accel-Buffering": "no"})
            response.content_type = "text/event-stream"
            await response.prepare(request)
            try:
                await self._send(response, watch, offset)
            except (Away, EOFError):
                pass  # the stream ends, and the reader comes again
            except TimeoutError:
                if request.transport is not None:
                    request.transport.abort()
            return response

    @contextmanager
    def _seat(self, job: int) -> Iterator[None]:
        if self._readers.total() >= self._most or self._readers[job] >= max(1, self._most // SHARE):
            raise Full
        self._readers[job] += 1
        try:
            yield
        finally:
            self._readers[job] -= 1
            if not self._readers[job]:
                del self._readers[job]

    async def _send(self, response: web.StreamResponse, watch: Watch, offset: int) -> None:
        await self._write(response, sse.opening(RETRY))
        while not watch.over:
            stream = watch.stream
            stored = stream.held.stored.contiguous
            if offset < stored:
                length = min(PIECE, stored - offset)
                body = await asyncio.to_thread(self._storage.read, stream.key, offset, length)
                if not body:
                    raise EOFError(f"{stream.key}: the file lost bytes that were committed")
                await self._write(response, sse.piece(offset, body))
                offset += len(body)
            elif stream.state != "open":
                end = stream.held.end
                sha256 = end.sha256 if end is not None and stream.state == "sealed" else None
                await self._write(response, sse.end(stream.state, stored, sha256))
                return
            elif not await watch.changed(HEARTBEAT):
                await self._write(response, sse.HEARTBEAT)

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        async with asyncio.timeout(self._stall_limit):
            await response.write(data)
