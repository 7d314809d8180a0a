"""The command `history`: which logs an attempt has, and a slice of one, over the broker alone."""

import asyncio
import base64

from leveret_logsink.catalogue import Catalogue
from leveret_logsink.replying import reply
from leveret_logsink.storage import Storage
from leveret_logsink.streams import Stream
from leveret_proto.base import JobFacts, Visibility
from leveret_proto.envelope import Unreadable, unpack_as
from leveret_proto.keys import RoutingKeyError, parse_command
from leveret_proto.messages import CommandFailed, HistoryReply, LogHistory, LogView
from leveret_proto.topology import LOGSINK_HISTORY
from leveret_runtime.broker import Consumer, Publisher, settle
from leveret_runtime.dead import file_dead


class History:
    """Answers `history`."""

    def __init__(self, catalogue: Catalogue, storage: Storage) -> None:
        self._catalogue = catalogue
        self._storage = storage

    async def run(self, consumer: Consumer, publisher: Publisher) -> None:
        """Answer until `consumer` stops. `publisher` takes replies and dead letters."""
        async for message in consumer:
            try:
                owner = parse_command(message.routing_key or "").owner
                asked = unpack_as(LogHistory, message.body, message.type)
                answer = await self.answer(owner, asked)
            except (Unreadable, RoutingKeyError) as error:
                await reply(publisher, message, CommandFailed(code="bad-request", message=str(error)))
                await file_dead(publisher, message, LOGSINK_HISTORY, str(error), app="logsink")
                continue
            await reply(publisher, message, answer)
            await settle(message)

    async def answer(self, owner: str, asked: LogHistory) -> HistoryReply | CommandFailed:
        """Answer `asked` as `owner` may know it: of its own jobs, and of public ones."""
        facts = await self._catalogue.job(asked.job)
        if facts is None or not _may_see(owner, facts):
            return CommandFailed(code="not-found", message=f"job {asked.job}: no such job, or it is not yours")
        attempt = asked.attempt or await self._catalogue.latest_attempt(asked.job)
        logs = [] if attempt is None else await self._catalogue.logs(asked.job, attempt)
        data = None
        for found in logs:
            if found.key.label == asked.task:
                data = await self._slice(found, asked)
        return HistoryReply(job=asked.job, attempt=attempt, logs=tuple(map(_view, logs)), data=data)

    async def _slice(self, stream: Stream, asked: LogHistory) -> str:
        """Give base64 of the bytes asked for, as far as they are there without a hole."""
        length = min(asked.limit, max(0, stream.held.stored.contiguous - asked.offset))
        body = await asyncio.to_thread(self._storage.read, stream.key, asked.offset, length) if length else b""
        return base64.b64encode(body).decode()


def _may_see(owner: str, facts: JobFacts) -> bool:
    return facts.owner == owner or facts.visibility is Visibility.PUBLIC


def _view(stream: Stream) -> LogView:
    held = stream.held
    return LogView(
        attempt=stream.key.attempt,
        task=stream.key.label,
        state=stream.state,
        bytes=held.stored.contiguous,
        sha256=held.end.sha256 if held.end and stream.state == "sealed" else None,
    )
