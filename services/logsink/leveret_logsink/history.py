"""The command `history`: which logs an attempt has, and a slice of one, over the broker alone."""

import asyncio
import base64

from leveret_logsink.catalogue import Catalogue
from leveret_logsink.storage import Storage, StorageAway
from leveret_logsink.streams import Stream
from leveret_proto.messages import CommandFailed, HistoryReply, LogHistory, LogView


class History:
    """Answers `history`."""

    def __init__(self, catalogue: Catalogue, storage: Storage) -> None:
        self._catalogue = catalogue
        self._storage = storage

    async def answer(self, owner: str, asked: LogHistory) -> HistoryReply | CommandFailed:
        """Answer `asked` as `owner` may know it: of its own jobs, and of public ones."""
        if await self._catalogue.job_for(owner, asked.job) is None:
            return CommandFailed(code="not-found", message=f"job {asked.job}: no such job, or it is not yours")
        attempt = asked.attempt or await self._catalogue.latest_attempt(asked.job)
        logs = [] if attempt is None else await self._catalogue.logs(asked.job, attempt)
        data = None
        for found in logs:
            if found.key.label == asked.task:
                try:
                    data = await self._slice(found, asked)
                except StorageAway:
                    return CommandFailed(code="unavailable", message=f"job {asked.job}: its log can't be read now")
        return HistoryReply(job=asked.job, attempt=attempt, logs=tuple(map(view, logs)), data=data)

    async def _slice(self, stream: Stream, asked: LogHistory) -> str:
        """Give base64 of the bytes asked for, as far as they are there without a hole."""
        length = min(asked.limit, max(0, stream.held.stored.contiguous - asked.offset))
        body = await asyncio.to_thread(self._storage.read, stream.key, asked.offset, length) if length else b""
        return base64.b64encode(body).decode()


def view(stream: Stream) -> LogView:
    """Give a log as readers are told of it."""
    held = stream.held
    return LogView(
        attempt=stream.key.attempt,
        task=stream.key.label,
        state=stream.state,
        bytes=held.stored.contiguous,
        sha256=held.end.sha256 if held.end and stream.state == "sealed" else None,
    )
