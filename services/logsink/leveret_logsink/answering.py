"""Commands about what is stored, over the broker: read, answered, filed as dead where they can't be read."""

from leveret_logsink.history import History
from leveret_logsink.links import Links
from leveret_logsink.replying import reply
from leveret_proto.envelope import Unreadable, unpack_as
from leveret_proto.keys import RoutingKeyError, parse_command
from leveret_proto.messages import AskLinks, CommandFailed, LogHistory, Message
from leveret_proto.topology import LOGSINK_HISTORY
from leveret_runtime.broker import Consumer, Publisher, settle
from leveret_runtime.dead import file_dead


class Answering:
    """Answers `history` and `links`."""

    def __init__(self, history: History, links: Links) -> None:
        self._history = history
        self._links = links

    async def run(self, consumer: Consumer, publisher: Publisher) -> None:
        """Answer until `consumer` stops. `publisher` takes replies and dead letters."""
        async for message in consumer:
            try:
                answer = await self._answer(message.routing_key or "", message.body, message.type)
            except (Unreadable, RoutingKeyError) as error:
                await reply(publisher, message, CommandFailed(code="bad-request", message=str(error)))
                await file_dead(publisher, message, LOGSINK_HISTORY, str(error), app="logsink")
                continue
            await reply(publisher, message, answer)
            await settle(message)

    async def _answer(self, key: str, body: bytes, type_: str | None) -> Message:
        whose = parse_command(key)
        if whose.command == "links":
            return await self._links.answer(whose.owner, unpack_as(AskLinks, body, type_))
        return await self._history.answer(whose.owner, unpack_as(LogHistory, body, type_))
