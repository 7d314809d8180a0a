"""Commands about groups: group."""

from leveret_dispatcher import grouping
from leveret_dispatcher.commands.asked import Asked, Handlers
from leveret_dispatcher.desk import Desk
from leveret_proto.messages import CloseGroup, Message
from leveret_runtime.failpoints import failpoint


async def close(desk: Desk, asked: Asked[CloseGroup]) -> Message:
    """Close a group of the owner's."""
    async with desk.transaction(lambda: failpoint("dispatcher.commands.before-commit")) as tx:
        return await grouping.close(tx, asked.owner, asked.command)


HANDLERS: Handlers = {CloseGroup: close}
