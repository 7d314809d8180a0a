"""What a family of commands is made of: a command as it was asked, and the shape of the functions that obey it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from leveret_dispatcher.desk import Desk
from leveret_proto.messages import CommandFailed, Message

C = TypeVar("C", bound=Message)


@dataclass(frozen=True, slots=True)
class Asked(Generic[C]):
    """A command.

    Attributes:
        owner: on whose behalf; the broker's permissions vouch for it.
        message_id: hostile; the same one means the same command, given again. None: the asker gave none.
        reply_to: where the answer goes; None where the asker wants none, or named what is no reply queue.
    """

    owner: str
    command: C
    message_id: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None


#: Obeys one type of command and gives the answer; None: somebody else answers. May be called again for a command that
#: was obeyed already. It holds the desk's transaction for as long as a change takes, never while it waits for others.
Handler = Callable[[Desk, Asked[Any]], Awaitable[Message | None]]
#: A family's table: the type of a command → who obeys it.
Handlers = Mapping[type[Message], Handler]


def not_found(job: int) -> CommandFailed:
    return CommandFailed(code="not-found", message=f"there is no job {job} of yours")
