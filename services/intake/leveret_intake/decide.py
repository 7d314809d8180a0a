"""What a submission is: acceptable, or not and why. Pure: envelope and body in, a decision out.

Owner and project are the routing key's words alone, for topic permissions guard those; nothing in body or headers can
change them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from leveret_intake.unserved import unserved
from leveret_proto.base import Visibility
from leveret_proto.capability import Requirement, requirement
from leveret_proto.envelope import JSON, Unreadable, describe, unpack_as
from leveret_proto.keys import RoutingKeyError, parse_submission
from leveret_proto.manifest import Diagnostic, Limits, Manifest, read
from leveret_proto.messages import Submission, SubmissionRejected
from leveret_runtime.hostile_frames import UNREADABLE_HEADERS

#: Content types of a raw manifest; none at all means the same.
YAML_TYPES = frozenset({"", "application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", "text/plain"})
#: What a raw manifest's AMQP headers may say.
HEADERS = ("note", "tags", "visibility", "priority", "secrets", "depends_on", "group")
_LISTS = ("tags", "depends_on")
#: Characters of an owner's name; that of a project is bounded by the routing word itself.
OWNER_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Envelope:
    """What AMQP says of a submission besides its body. Everything in it is hostile."""

    routing_key: str
    content_type: str = ""
    type: str = ""
    message_id: str | None = None
    #: The broker account, where the broker vouched for it.
    user_id: str | None = None
    headers: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Accept:
    """A submission that becomes a job, unless its `message_id` is taken by another one."""

    owner: str
    project: str
    #: None: the submitter gave none.
    message_id: str | None
    #: SHA-256 of the body.
    digest: bytes
    submission: Submission
    manifest: Manifest
    requirement: Requirement
    warnings: tuple[Diagnostic, ...]
    submitter: str | None


@dataclass(frozen=True, slots=True)
class Reject:
    """A submission that becomes no job. `fatal`: not even a manifest could be made out, so it is a dead letter."""

    answer: SubmissionRejected
    fatal: bool
    #: None where the routing key could not be read: then nobody can be told by an event.
    owner: str | None = None
    project: str | None = None
    visibility: Visibility = Visibility.PRIVATE


class _EnvelopeFault(ValueError):
    """Routing key, properties, headers or JSON that can't be read; the text says which and why."""


def decide(envelope: Envelope, body: bytes, limits: Limits, default_arch: str = "x86_64") -> Accept | Reject:
    """Judge one submission. Never raises, whatever it is given; time and memory are bounded by `limits`."""
    owner = project = message_id = None
    try:
        owner, project = _addressee(envelope.routing_key)
        message_id = _message_id(envelope.message_id)
        submission, manifest_text = _contents(envelope, body)
    except _EnvelopeFault as fault:
        return Reject(_rejected(message_id, "envelope", str(fault)), fatal=True, owner=owner, project=project)

    reading = read(manifest_text, limits)
    found = tuple(reading.diagnostics)
    if reading.manifest is None:
        reason: Literal["unreadable", "faults"] = "unreadable" if reading.fatal else "faults"
        answer = _rejected(message_id, reason, _summary(found, reading.fatal), found)
        return Reject(answer, reading.fatal, owner, project, submission.visibility)
    return Accept(
        owner=owner,
        project=project,
        message_id=message_id,
        digest=hashlib.sha256(body).digest(),
        submission=submission,
        manifest=reading.manifest,
        requirement=requirement(reading.manifest, reading.manifest.arch or default_arch, reading.manifest.image),
        warnings=found + unserved(reading.manifest, _text(manifest_text)),
        submitter=envelope.user_id or None,
    )


def _text(manifest: bytes | str) -> str:
    return manifest if isinstance(manifest, str) else manifest.decode(errors="replace")


def conflict(accepted: Accept, job: int) -> Reject:
    """Give the answer to a submission whose `message_id` belongs to another body, which is job `job`."""
    text = (
        f"message_id {accepted.message_id!r} is that of job {job}, submitted with another body; "
        "give every manifest a message_id of its own"
    )
    answer = _rejected(accepted.message_id, "conflict", text)
    return Reject(answer, False, accepted.owner, accepted.project, accepted.submission.visibility)


def unknown_jobs(accepted: Accept, jobs: Sequence[int]) -> Reject:
    """Give the answer to a submission that depends on `jobs`, which its owner does not have."""
    named = f"is no job {jobs[0]}" if len(jobs) == 1 else f"are no jobs {', '.join(map(str, jobs))}"
    text = f"there {named} of yours; depends_on takes the numbers of jobs that {accepted.owner} has submitted before"
    answer = _rejected(accepted.message_id, "faults", text)
    return Reject(answer, False, accepted.owner, accepted.project, accepted.submission.visibility)


def _addressee(routing_key: str) -> tuple[str, str]:
    try:
        owner, project = parse_submission(routing_key)
    except RoutingKeyError as error:
        raise _EnvelopeFault(f"{error}; publish a manifest under <owner>.<project>") from None
    for what, text in (("owner", owner), ("project", project)):
        _printable(what, text)
    if len(owner) > OWNER_LENGTH:
        raise _EnvelopeFault(f"routing key: an owner of {len(owner)} characters; the limit is {OWNER_LENGTH}")
    return owner, project


def _message_id(given: str | None) -> str | None:
    if not given:
        return None
    _printable("message_id", given)
    return given


def _printable(what: str, text: str) -> None:
    # PostgreSQL holds no NUL, and a terminal should get no control sequences from a name
    if not text.isprintable():
        raise _EnvelopeFault(f"{what} has characters that can't be printed: {text[:40]!a}")


def _contents(envelope: Envelope, body: bytes) -> tuple[Submission, bytes | str]:
    """Give the submission, and the manifest's text as it came."""
    content_type = envelope.content_type.partition(";")[0].strip().lower()
    if content_type == JSON or (not content_type and envelope.type == Submission.TYPE):
        submission = _from_json(envelope, body)
        text: bytes | str = submission.manifest
    elif content_type in YAML_TYPES:
        # the text itself stays out of the model: the reader takes the bytes, with their encoding faults
        submission, text = _from_headers(envelope.headers or {}), body
    else:
        raise _EnvelopeFault(f"content type {content_type[:80]!r}; send application/yaml or {JSON}")
    for tag in submission.tags:
        _printable("tag", tag)
    if submission.group is not None:
        _printable("group", submission.group)
    if submission.note and "\0" in submission.note:
        raise _EnvelopeFault("note has a NUL character")
    return submission, text


def _from_json(envelope: Envelope, body: bytes) -> Submission:
    try:
        return unpack_as(Submission, body, envelope.type or Submission.TYPE)
    except Unreadable as error:
        raise _EnvelopeFault(str(error)) from None


def _from_headers(headers: Mapping[str, Any]) -> Submission:
    if UNREADABLE_HEADERS in headers:
        raise _EnvelopeFault("the headers are no AMQP table of UTF-8 names and known types")
    given = {name: headers[name] for name in HEADERS if headers.get(name) is not None}
    # tools that can only send texts write a list with commas
    for name in _LISTS:
        if isinstance(given.get(name), str):
            given[name] = [item.strip() for item in given[name].split(",") if item.strip()]
    try:
        return Submission.model_validate({"manifest": ""} | given)
    except ValidationError as error:
        raise _EnvelopeFault(f"header {describe(error)}") from None


def _rejected(
    message_id: str | None,
    reason: Literal["faults", "unreadable", "conflict", "envelope"],
    message: str,
    diagnostics: tuple[Diagnostic, ...] = (),
) -> SubmissionRejected:
    return SubmissionRejected(submission=message_id, reason=reason, message=message, diagnostics=diagnostics)


def _summary(found: tuple[Diagnostic, ...], fatal: bool) -> str:
    faults = [diagnostic for diagnostic in found if diagnostic.severity == "fault"]
    if fatal or len(faults) == 1:
        return f"{'no manifest could be read' if fatal else 'one fault'}: {faults[0].message}"
    return f"{len(faults)} faults in the manifest"
