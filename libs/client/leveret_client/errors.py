"""What can go wrong for a client, as exceptions whose text tells a person what to do."""

from aio_pika.exceptions import AMQPError, ChannelInvalidStateError

from leveret_proto.messages import SubmissionRejected
from leveret_runtime.away import BrokerAway, told


class ClientError(Exception):
    """Base of everything below."""


class NotReached(ClientError):
    """The broker can't be reached, or the connection was lost meanwhile."""


class NoAnswer(ClientError):
    """The broker took the request, but no service answered in time, or none is there to take it."""


class NotAllowed(ClientError):
    """The broker does not let this account do that."""


class NotFound(ClientError):
    """No such job or log, or it is not yours to see."""


class CommandRefused(ClientError):
    """A service can't do what was asked; the text is its own."""


class CursorUnusable(ClientError):
    """A subscriber's cursor can't be read or kept; the text says what to do."""


class DownloadError(ClientError):
    """A file could not be fetched whole; the text says why."""


class SubmissionFailed(ClientError):
    """A manifest became no job. `answer` holds every fault."""

    def __init__(self, answer: SubmissionRejected) -> None:
        super().__init__(answer.message)
        self.answer = answer


def plain(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Give the one exception that a group of a lost or ended session stands for."""
    leaves: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop(0)
        if isinstance(error, BaseExceptionGroup):
            pending.extend(error.exceptions)
        else:
            leaves.append(error)
    # that the broker went away explains whatever else went wrong
    chosen = next((error for error in leaves if isinstance(error, BrokerAway)), leaves[0])
    if isinstance(chosen, BrokerAway):
        return NotReached(str(chosen))
    # whoever was at work on a channel may notice before the connection does
    return NotReached(told("RabbitMQ", chosen)) if isinstance(chosen, AMQPError | ChannelInvalidStateError) else chosen
