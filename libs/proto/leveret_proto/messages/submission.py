"""Submissions: a manifest on its way in, and the answers to whoever sent it."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from leveret_proto.base import JobId, Message, MessageId, Name, Note, Tag, Visibility, Word
from leveret_proto.manifest import Diagnostic

Priority = Annotated[int, Field(ge=-100, le=100)]


class Submission(Message):
    """A manifest with its circumstances as JSON. The raw manifest with headers of the same names will do as well."""

    TYPE: ClassVar[str] = "job.submission.v1"

    #: YAML text of a build manifest.
    manifest: str
    note: Note | None = None
    tags: Annotated[tuple[Tag, ...], Field(max_length=16)] = ()
    visibility: Visibility = Visibility.UNLISTED
    priority: Priority = 0
    #: False withholds every secret the manifest names (as for a patch from a stranger).
    secrets: bool = True
    #: Jobs of the same owner that must succeed first.
    depends_on: Annotated[tuple[JobId, ...], Field(max_length=64)] = ()
    #: Joins the owner's group of this name.
    group: Word | None = None
    #: The job that this one repeats.
    retry_of: JobId | None = None


class SubmissionAccepted(Message):
    """The answer to a submission that became a job; the same answer for ever to the same `message_id`."""

    TYPE: ClassVar[str] = "submission.accepted.v1"

    submission: MessageId
    job: JobId
    owner: Name
    #: True where this `message_id` had been accepted before.
    known: bool = False
    warnings: tuple[Diagnostic, ...] = ()


class SubmissionRejected(Message):
    """The answer to a submission that became no job, with every fault that was found."""

    TYPE: ClassVar[str] = "submission.rejected.v1"

    submission: MessageId | None = None
    #: `faults`: the manifest breaks rules; `unreadable`: no manifest could be read; `conflict`: the `message_id`
    #: is taken by another body; `envelope`: routing key, headers or JSON are wrong.
    reason: Literal["faults", "unreadable", "conflict", "envelope"]
    message: str
    diagnostics: tuple[Diagnostic, ...] = ()
