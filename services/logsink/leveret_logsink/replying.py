"""Answers to commands."""

import structlog
from aio_pika.abc import AbstractIncomingMessage

from leveret_proto.envelope import pack
from leveret_proto.messages import Message
from leveret_proto.topology import REPLY_QUEUES
from leveret_runtime.broker import Publisher, Refused

log = structlog.get_logger(__name__)


async def reply(publisher: Publisher, asked: AbstractIncomingMessage, answer: Message) -> None:
    """Reply, where the asker gave a queue of its own for that. An asker that has gone gets nothing."""
    to = asked.reply_to or ""
    if not to.startswith(REPLY_QUEUES):
        return
    try:
        await publisher.send("", to, pack(answer), app="logsink", mandatory=False, correlation_id=asked.correlation_id)
    except Refused:
        log.warning("reply not taken", command=asked.type)
