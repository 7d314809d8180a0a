"""The client: submit, ask, cancel and follow, all through the broker alone."""

import base64
import binascii
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Any, TypeVar

from aio_pika.abc import AbstractConnection
from pydantic import SecretStr

from leveret_client.calls import APP, Calls
from leveret_client.errors import CommandRefused, NoAnswer, NotFound, NotReached, SubmissionFailed, plain
from leveret_client.follow import Following, LogBytes
from leveret_client.following import follow
from leveret_client.sealed import sealed_for
from leveret_client.subscription import Subscription
from leveret_proto import keys
from leveret_proto.base import Visibility
from leveret_proto.envelope import Parcel, pack
from leveret_proto.ids import message_id as new_message_id
from leveret_proto.manifest import Trigger
from leveret_proto.messages import (
    AskLinks,
    AskSecretsKey,
    CancelJob,
    CancelReply,
    CloseGroup,
    CommandFailed,
    DeadDoneReply,
    DeadListReply,
    DeadReply,
    DrainWorker,
    DropDead,
    Event,
    ExplainJob,
    ExplainReply,
    GroupReply,
    GroupView,
    HistoryReply,
    JobReply,
    JobStatus,
    JobView,
    LinksReply,
    ListDead,
    ListJobs,
    ListReply,
    ListSecrets,
    ListWorkers,
    LogHistory,
    Message,
    PrioritizeJob,
    RemoveSecret,
    Replay,
    ReplayReply,
    ResumeWorker,
    RetryDead,
    RetryJob,
    SecretKind,
    SecretsKeyReply,
    SecretsReply,
    SecretView,
    ShowDead,
    ShowJob,
    SubmissionAccepted,
    SubmissionRejected,
    WorkerReply,
    WorkersReply,
    WorkerView,
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
        depends_on: Sequence[int] = (),
        group: str | None = None,
        message_id: str | None = None,
    ) -> SubmissionAccepted:
        """Submit a manifest for this owner.

        Args:
            depends_on: jobs of this owner that must succeed first.
            group: joins the owner's group of this name; see `close_group`.
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
        if depends_on:
            headers["depends_on"] = list(depends_on)
        if group is not None:
            headers["group"] = group
        parcel = Parcel(body, "", "application/yaml", headers, message_id or new_message_id())
        answer = await self._opened.ask(SUBMIT, keys.submission(self.owner, project), parcel, self._limit)
        if isinstance(answer, SubmissionRejected):
            raise SubmissionFailed(answer)
        return _expected(SubmissionAccepted, answer)

    async def show(self, job: int) -> JobView:
        """Give the job as it stands. Raises NotFound."""
        return (await self._command(ShowJob(job=job), JobReply)).job

    async def list(
        self, *, before: int | None = None, limit: int = 50, statuses: Sequence[JobStatus] = ()
    ) -> ListReply:
        """Give the owner's jobs, newest first: at most `limit` (1 to 500), those before job `before`."""
        return await self._command(ListJobs(before=before, limit=limit, statuses=tuple(statuses)), ListReply)

    async def cancel(self, job: int) -> CancelReply:
        """Cancel the job. Raises NotFound."""
        return await self._command(CancelJob(job=job), CancelReply)

    async def retry(self, job: int, *, message_id: str | None = None) -> SubmissionAccepted:
        """Submit the manifest of an ended job again, as a new job.

        Args:
            message_id: retrying again under it gives the same new job; a new one by default.

        Raises:
            NotFound: there is no such job of this owner.
            CommandRefused: it has not ended.
            SubmissionFailed: its manifest is accepted no more.
        """
        return await self._command(RetryJob(job=job), SubmissionAccepted, message_id)

    async def prioritize(self, job: int, priority: int) -> JobView:
        """Change the priority (-100 to 100) of a waiting job. Raises NotFound, CommandRefused."""
        return (await self._command(PrioritizeJob(job=job, priority=priority), JobReply)).job

    async def explain(self, job: int) -> ExplainReply:
        """Say why a job waits, where it stands in line, and how the workers stand beside it. Raises NotFound."""
        return await self._command(ExplainJob(job=job), ExplainReply)

    async def workers(self) -> tuple[WorkerView, ...]:
        """Give by name the live workers, and those that are drained or quarantined while they are away."""
        found: list[WorkerView] = []
        while True:
            page = await self._command(ListWorkers(after=found[-1].worker if found else None), WorkersReply)
            found += page.workers
            if not page.more or not page.workers:
                return tuple(found)

    async def drain_worker(self, worker: str, *, limit: float | None = None) -> WorkerReply:
        """Have a worker given no more jobs until it is resumed. For operators' accounts, as `resume_worker`.

        Args:
            limit: seconds that what runs there is given, then it is handed back and runs elsewhere; None: as the
                worker's configuration says.

        Raises:
            NotFound: no such worker was there within the last day.
        """
        return await self._command(DrainWorker(worker=worker, limit=limit), WorkerReply)

    async def resume_worker(self, worker: str) -> WorkerReply:
        """Have a worker given jobs again, drained or quarantined. Raises NotFound."""
        return await self._command(ResumeWorker(worker=worker), WorkerReply)

    async def close_group(
        self,
        group: str,
        *,
        size: int,
        triggers: Sequence[Trigger] = (),
        visibility: Visibility = Visibility.UNLISTED,
        note: str | None = None,
    ) -> GroupView:
        """Say how many jobs (1 to 512) a group has and what to do when all have ended; give the group as it stands.

        Raises:
            CommandRefused: it was closed in other words before, or has more jobs already.
        """
        said = CloseGroup(group=group, size=size, triggers=tuple(triggers), visibility=visibility, note=note)
        return (await self._command(said, GroupReply)).group

    async def add_secret(
        self,
        value: bytes,
        kind: SecretKind,
        *,
        name: str | None = None,
        path: str | None = None,
        mode: int | None = None,
        message_id: str | None = None,
    ) -> SecretView:
        """Have a secret kept for this owner; the value leaves this process sealed.

        Args:
            value: at most MAX_SECRET bytes.
            name: 4 to 511 bytes, unique among the owner's; None: known by its UUID alone.
            path: for a file: where the guest gets it, absolute or from the build user's home.
            mode: for a file: its permission bits; 0600 by default.
            message_id: adding again under it keeps the secret once; a new one by default.

        Raises:
            CommandRefused: the name is taken, something about the secret is wrong, or secrets are not kept here.
        """
        key = (await self._command(AskSecretsKey(), SecretsKeyReply)).public_key
        command = sealed_for(key, value, kind, name, path, mode)
        return (await self._command(command, SecretsReply, message_id)).secrets[0]

    async def list_secrets(self) -> tuple[SecretView, ...]:
        """Give the owner's secrets, oldest first, without their values."""
        return (await self._command(ListSecrets(), SecretsReply)).secrets

    async def remove_secret(self, secret: str) -> SecretView:
        """Have the owner's secret of this name or UUID forgotten, and give what it was. Raises NotFound."""
        return (await self._command(RemoveSecret(secret=secret), SecretsReply)).secrets[0]

    async def dead_letters(
        self, *, before: int | None = None, limit: int = 50, queue: str | None = None
    ) -> DeadListReply:
        """Give dead letters, newest first: at most `limit` (1 to 500). For operators' accounts, as the next three."""
        return await self._command(ListDead(before=before, limit=limit, queue=queue), DeadListReply)

    async def dead_letter(self, letter: int) -> DeadReply:
        """Give a dead letter with its history and what was kept of its body. Raises NotFound."""
        return await self._command(ShowDead(letter=letter), DeadReply)

    async def retry_dead(self, letters: Sequence[int]) -> DeadDoneReply:
        """Have 1 to 500 dead letters published again as they came."""
        return await self._command(RetryDead(letters=tuple(letters)), DeadDoneReply)

    async def drop_dead(self, letters: Sequence[int]) -> DeadDoneReply:
        """Have 1 to 500 dead letters forgotten."""
        return await self._command(DropDead(letters=tuple(letters)), DeadDoneReply)

    async def history(
        self, job: int, *, attempt: int | None = None, task: str | None = None, offset: int = 0, limit: int = MAX_CHUNK
    ) -> tuple[HistoryReply, bytes]:
        """Give the job's stored logs, and up to `limit` bytes of that of `task` from `offset`. Raises NotFound."""
        asked = LogHistory(job=job, attempt=attempt, task=task, offset=offset, limit=limit)
        reply = await self._command(asked, HistoryReply)
        try:
            return reply, base64.b64decode(reply.data or "", validate=True)
        except binascii.Error:
            raise NoAnswer("the answer's data is not base64") from None

    async def links(self, job: int, *, attempt: int | None = None, seconds: int = 3600) -> LinksReply:
        """Give links to what is stored of an attempt (the latest by default): its logs and its artifacts.

        Args:
            seconds: for how long those to a private job's work, at most a week.

        Raises:
            NotFound: there is no such job of this owner, nor a public one.
            CommandRefused: the job is private, and this installation signs no links.
        """
        return await self._command(AskLinks(job=job, attempt=attempt, seconds=seconds), LinksReply)

    async def replay_page(
        self,
        *,
        since: datetime | None = None,
        after: int | None = None,
        job: int | None = None,
        public: bool = False,
        workers: bool = False,
        limit: int = 500,
    ) -> ReplayReply:
        """Give a page of the owner's past events as they were recorded, where to go on, and whether that was all.

        A page may be empty though it is not the last. An event that was published twice comes twice: `resuming` reads
        page after page, drops repeats, and goes on with what happens next.

        Args:
            since: only events of this time or later; give it with every page of one reading. With neither this nor
                `after`: all that are kept.
            after: only those past this place, which is the `next` of the page before.
            job: of the events about jobs, only this one's.
            public: everybody's public jobs, too.
            workers: workers, too.
            limit: how many at most, 1 to 1000.
        """
        asked = Replay(after=after, since=since, job=job, public=public, workers=workers, limit=limit)
        return await self._command(asked, ReplayReply)

    async def subscribe(self) -> Subscription:
        """Open a subscription, bound to nothing yet."""
        return await Subscription.open(self._open_connection)

    async def follow(
        self, job: int, *, state: Following | None = None, subscription: Subscription | None = None
    ) -> AsyncGenerator[Event | LogBytes, None]:
        """Give the job's events and log bytes until it has ended and its logs are told. Raises NotFound.

        Args:
            state: that of a following which was cut short, to go on where it stopped; read its `end` for the result.
            subscription: one whose bindings cover the job already (made before submitting, so that nothing is missed).
        """
        async for shown in follow(self, job, state or Following(job), subscription):
            yield shown

    async def _command(self, message: Message, answer: type[R], message_id: str | None = None) -> R:
        parcel = pack(message)
        if message_id is not None:
            parcel = replace(parcel, message_id=message_id)
        reply = await self._opened.ask(
            COMMANDS, keys.command(keys.command_word(message.TYPE), self.owner), parcel, self._limit
        )
        if isinstance(reply, CommandFailed):
            raise NotFound(reply.message) if reply.code == "not-found" else CommandRefused(reply.message)
        if isinstance(reply, SubmissionRejected):
            raise SubmissionFailed(reply)
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
