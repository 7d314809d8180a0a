"""The client: submit, ask, cancel and follow, all through the broker alone."""

import base64
import binascii
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, TypeVar

from aio_pika.abc import AbstractConnection
from pydantic import SecretStr

from leveret_client.calls import APP, Calls
from leveret_client.errors import CommandRefused, NoAnswer, NotFound, NotReached, SubmissionFailed, plain
from leveret_client.follow import Following, LogBytes
from leveret_client.following import follow
from leveret_client.subscription import Subscription
from leveret_proto import keys
from leveret_proto.base import Visibility
from leveret_proto.envelope import Parcel, pack
from leveret_proto.ids import message_id as new_message_id
from leveret_proto.messages import (
    CancelJob,
    CancelReply,
    CommandFailed,
    Event,
    HistoryReply,
    JobReply,
    JobStatus,
    JobView,
    ListJobs,
    ListReply,
    LogHistory,
    Message,
    ShowJob,
    SubmissionAccepted,
    SubmissionRejected,
)
from leveret_proto.messages.stream import MAX_CHUNK
from leveret_proto.topology import COMMANDS, SUBMIT
from leveret_runtime.away import BrokerAway
from leveret_runtime.broker import connection

#: Seconds until a command must have been answered.
ANSWER_LIMIT = 15.0

R = TypeVar("R", bound=Message)


class Client:
    """A connection that speaks for one owner: `async with Client(url, owner) as client: ...`.

    Every method raises NotReached where the broker is away, NoAnswer where no service answers, NotAllowed where the
    broker refuses this account.
    """

    def __init__(self, amqp_url: str | SecretStr, owner: str, *, limit: float = ANSWER_LIMIT) -> None:
        """
        Args:
            amqp_url: `amqp://user:password@host:port/vhost`, or `amqps` for TLS.
            owner: on whose behalf; the account must be allowed to.
            limit: seconds until a command must have been answered.
        """
        self.owner = owner
        self._url = amqp_url if isinstance(amqp_url, SecretStr) else SecretStr(amqp_url)
        self._limit = limit
        self._stack = AsyncExitStack()
        self._connection: AbstractConnection | None = None
        self._calls: Calls | None = None

    async def __aenter__(self) -> "Client":
        try:
            self._connection = await self._stack.enter_async_context(connection(self._url, APP))
            self._calls = await Calls.open(self._connection)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._stack.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            raise plain(group) from None
        if isinstance(error, BrokerAway):
            raise NotReached(str(error)) from error

    async def submit(
        self,
        manifest: str | bytes,
        *,
        project: str,
        note: str | None = None,
        tags: Sequence[str] = (),
        visibility: Visibility = Visibility.UNLISTED,
        priority: int = 0,
        secrets: bool = True,
        message_id: str | None = None,
    ) -> SubmissionAccepted:
        """Submit a manifest for this owner.

        Args:
            message_id: submitting the same manifest again under it gives the same job; a new one by default.

        Raises:
            SubmissionFailed: with every fault.
        """
        body = manifest.encode() if isinstance(manifest, str) else manifest
        headers: dict[str, Any] = {"visibility": str(visibility), "priority": priority, "secrets": secrets}
        if note is not None:
            headers["note"] = note
        if tags:
            headers["tags"] = list(tags)
        parcel = Parcel(body, "", "application/yaml", headers, message_id or new_message_id())
        answer = await self._opened.ask(SUBMIT, keys.submission(self.owner, project), parcel, self._limit)
        if isinstance(answer, SubmissionRejected):
            raise SubmissionFailed(answer)
        return _expected(SubmissionAccepted, answer)

    async def show(self, job: int) -> JobView:
        """Give the job as it stands. Raises NotFound."""
        return (await self._command("show", ShowJob(job=job), JobReply)).job

    async def list(
        self, *, before: int | None = None, limit: int = 50, statuses: Sequence[JobStatus] = ()
    ) -> ListReply:
        """Give the owner's jobs, newest first: at most `limit` (1 to 500), those before job `before`."""
        return await self._command(
            "list", ListJobs(before=before, limit=limit, statuses=tuple(statuses)), ListReply
        )  # fmt: skip

    async def cancel(self, job: int) -> CancelReply:
        """Cancel the job. Raises NotFound."""
        return await self._command("cancel", CancelJob(job=job), CancelReply)

    async def history(
        self, job: int, *, attempt: int | None = None, task: str | None = None, offset: int = 0, limit: int = MAX_CHUNK
    ) -> tuple[HistoryReply, bytes]:
        """Give the job's stored logs, and up to `limit` bytes of that of `task` from `offset`. Raises NotFound."""
        asked = LogHistory(job=job, attempt=attempt, task=task, offset=offset, limit=limit)
        reply = await self._command("history", asked, HistoryReply)
        try:
            return reply, base64.b64decode(reply.data or "", validate=True)
        except binascii.Error:
            raise NoAnswer("the answer's data is not base64") from None

    async def subscribe(self) -> Subscription:
        """Open a subscription, bound to nothing yet."""
        return await Subscription.open(self._open_connection)

    async def follow(
        self, job: int, *, state: Following | None = None, subscription: Subscription | None = None
    ) -> AsyncIterator[Event | LogBytes]:
        """Give the job's events and log bytes until it has ended and its logs are told. Raises NotFound.

        Args:
            state: that of a following which was cut short, to go on where it stopped; read its `end` for the result.
            subscription: one whose bindings cover the job already (made before submitting, so that nothing is missed).
        """
        async for shown in follow(self, job, state or Following(job), subscription):
            yield shown

    async def _command(self, word: str, message: Message, answer: type[R]) -> R:
        reply = await self._opened.ask(COMMANDS, keys.command(word, self.owner), pack(message), self._limit)
        if isinstance(reply, CommandFailed):
            raise NotFound(reply.message) if reply.code == "not-found" else CommandRefused(reply.message)
        return _expected(answer, reply)

    @property
    def _opened(self) -> Calls:
        if self._calls is None:
            raise RuntimeError("use the client within `async with`")
        return self._calls

    @property
    def _open_connection(self) -> AbstractConnection:
        if self._connection is None:
            raise RuntimeError("use the client within `async with`")
        return self._connection


def _expected(model: type[R], answer: Message) -> R:
    if not isinstance(answer, model):
        raise NoAnswer(f"an answer of type {answer.TYPE} where {model.TYPE} was expected")
    return answer
