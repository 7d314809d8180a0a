"""A reader of server-sent events (HTML standard, section 9.2), as a browser's EventSource is one."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

#: Seconds until a reader comes again.
RETRY = 0.1


@dataclass
class LogReader:
    """Reads one log live. `start` is where it began, `body` what came since, `end` the last event's data."""

    url: str
    start: int | None = None
    body: bytearray = field(default_factory=bytearray)
    end: dict[str, Any] | None = None
    last_id: str = ""
    comments: int = 0
    #: What was answered, in order.
    statuses: list[int] = field(default_factory=list)

    async def read(self, http: aiohttp.ClientSession) -> AsyncIterator[bytes]:
        """Connect once, and give each piece, until the stream ends or breaks."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": self.last_id} if self.last_id else {})
        async with http.get(self.url, headers=headers) as response:
            self.statuses.append(response.status)
            if response.status != 200:
                return
            assert response.headers["Content-Type"] == "text/event-stream"
            kind, data, id_ = "", "", self.last_id
            async for line in response.content:
                name, _, value = line.decode().rstrip("\n").partition(":")
                value = value.removeprefix(" ")
                if line == b"\n":
                    self.last_id = id_  # not before: of an event that was cut off nothing counts
                    if data:
                        piece = self._take(kind, data)
                        if piece:
                            yield piece
                    kind, data = "", ""
                elif name == "":
                    self.comments += 1
                elif name == "event":
                    kind = value
                elif name == "data":
                    data = value
                elif name == "id":
                    id_ = value

    async def read_through(self, http: aiohttp.ClientSession) -> None:
        """Read, and connect again whenever the stream ends or breaks, until the log's end has come."""
        while self.end is None:
            try:
                async for _ in self.read(http):
                    pass
            except aiohttp.ClientError:
                pass
            if self.end is None:
                await asyncio.sleep(RETRY)

    def _take(self, kind: str, data: str) -> bytes:
        if kind == "end":
            self.end = json.loads(data)
            return b""
        piece = base64.b64decode(data, validate=True)
        begins = int(self.last_id) - len(piece)
        if self.start is None:
            self.start = begins
        assert begins == self.start + len(self.body)
        self.body += piece
        return piece
