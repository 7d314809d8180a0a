"""Takes commands from people and programs, has each obeyed, and answers where there is a way to answer.

Commands of one owner are obeyed in the order they came, those of several in one batch at the same time.
"""

import asyncio
from collections.abc import Iterable, Sequence

from aio_pika.abc import AbstractConnection

from leveret_dispatcher.commands import dead, drain, groups, jobs, secrets, workers
from leveret_dispatcher.commands.asked import Asked, Handler, Handlers
from leveret_dispatcher.config import APP
from leveret_dispatcher.desk import Desk
from leveret_dispatcher.handlers.reading import Delivery, batches
from leveret_proto import keys
from leveret_proto.envelope import Unreadable, pack, unpack
from leveret_proto.keys import RoutingKeyError
from leveret_proto.messages import CommandFailed, Message
from leveret_proto.topology import DISPATCHER_COMMANDS, REPLY_QUEUES
from leveret_runtime.broker import Refused, settle
from leveret_runtime.dead import file_dead
from leveret_runtime.failpoints import failpoint

#: Commands obeyed at the same time.
BATCH = 16


def table(*families: Handlers) -> dict[type[Message], tuple[str, Handler]]:
    """Make one table of `families`: a command's type → its routing word and who obeys it."""
    made: dict[type[Message], tuple[str, Handler]] = {}
    for family in families:
        for model, handler in family.items():
            if model in made:
                raise ValueError(f"{model.TYPE} stands in two families")
            made[model] = (keys.command_word(model.TYPE), handler)
    return made


TABLE = table(jobs.HANDLERS, workers.HANDLERS, drain.HANDLERS, groups.HANDLERS, secrets.HANDLERS, dead.HANDLERS)


async def consume_commands(desk: Desk, on: AbstractConnection, stop: asyncio.Event) -> None:
    """Take commands until `stop` is set."""
    async for batch in batches(on, DISPATCHER_COMMANDS, stop, BATCH):
        async with asyncio.TaskGroup() as group:
            for of_one in _by_owner(batch):
                group.create_task(_in_order(desk, of_one))


def _by_owner(batch: Iterable[Delivery]) -> list[list[Delivery]]:
    """Part a batch by the owners that the routing keys name; each part keeps its order."""
    parts: dict[str, list[Delivery]] = {}
    for delivery in batch:
        parts.setdefault((delivery.routing_key or "").partition(".")[2], []).append(delivery)
    return list(parts.values())


async def _in_order(desk: Desk, deliveries: Sequence[Delivery]) -> None:
    for delivery in deliveries:
        await _take(desk, delivery)


async def _take(desk: Desk, delivery: Delivery) -> None:
    try:
        handler, asked = read(delivery)
    except (Unreadable, RoutingKeyError) as error:
        await _reply(desk, delivery, CommandFailed(code="bad-request", message=str(error)))
        await file_dead(desk.publisher, delivery, DISPATCHER_COMMANDS, str(error), app=APP)
        return
    answer = await handler(desk, asked)
    failpoint("dispatcher.commands.between-commit-and-publish")
    if answer is not None:
        await _reply(desk, delivery, answer)
    failpoint("dispatcher.commands.before-ack")
    await settle(delivery)


def read(delivery: Delivery) -> tuple[Handler, Asked[Message]]:
    """Read a command, and find who obeys it.

    Raises:
        Unreadable, RoutingKeyError: it is none, or not one that its routing word takes.
    """
    key = keys.parse_command(delivery.routing_key or "")
    command = unpack(delivery.body, delivery.type)
    word, handler = TABLE.get(type(command), (None, None))
    if handler is None or word != key.command:
        raise Unreadable(f"{delivery.type} is not what {key.command!r} takes")
    return handler, Asked(key.owner, command, delivery.message_id, _reply_to(delivery), delivery.correlation_id)


def _reply_to(delivery: Delivery) -> str | None:
    to = delivery.reply_to
    return to if to and to.startswith(REPLY_QUEUES) else None


async def _reply(desk: Desk, delivery: Delivery, answer: Message) -> None:
    to = _reply_to(delivery)
    if to is None:
        return
    try:
        await desk.publisher.send(
            "", to, pack(answer), app=APP, mandatory=False, correlation_id=delivery.correlation_id
        )
    except Refused:
        pass  # the asker's own queue is full, and the asker will ask again
