"""The mail that tells of a job's or group's end: recipients, headers and text, modelled on builds.sr.ht's. Pure.

Whatever comes from a manifest or a guest is stripped of control characters before it gets near a header.
"""

import re
from collections.abc import Iterable
from email.headerregistry import Address as HeaderAddress
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from uuid import UUID

from leveret_notifier.ended import Ended
from leveret_notifier.outcome import Unsendable
from leveret_proto.base import Visibility
from leveret_proto.manifest import Trigger
from leveret_proto.manifest.addresses import Address, addresses
from leveret_proto.messages import EndedGroup, EndedJob, JobStatus, TaskResult, TaskState

MAX_RECIPIENTS = 50
_MAX_SUBJECT_TAGS = 200
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_MESSAGE_ID = re.compile(r"<?([!-;=?A-~]{1,240}@[!-;=?A-~]{1,240})>?")
_MARKS = {TaskState.SUCCESS: "✓", TaskState.FAILED: "✗"}
_JOB_MARKS = {JobStatus.SUCCESS: "✓", JobStatus.CANCELLED: "-"}


#: Lines as long as RFC 5322 section 2.1.1 lets them be: a shorter limit has Python break a Message-ID apart.
_WIRE = SMTP.clone(max_line_length=990)


def letter(ended: Ended, trigger: Trigger, sender: Address, delivery: UUID) -> EmailMessage:
    """Write the mail; the same one for every try, so that a receiver who got two can tell by the Message-ID.

    Raises:
        Unsendable: an address list is not one, or has more than `MAX_RECIPIENTS`.
    """
    mail = EmailMessage(policy=_WIRE)
    mail["From"] = _header_address(sender)
    for header, text in (("To", trigger.to), ("Cc", trigger.cc)):
        if text and text.strip():
            mail[header] = [_header_address(address) for address in _read(header, text)]
    mail["Subject"] = _subject(ended) if isinstance(ended, EndedJob) else _group_subject(ended)
    mail["Date"] = format_datetime(ended.ended_at)
    mail["Message-ID"] = f"<{delivery}@{_domain(sender)}>"
    answered = _message_id(trigger.in_reply_to)
    if answered:
        mail["In-Reply-To"] = answered
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Leveret-Delivery"] = str(delivery)
    text = _text(ended) if isinstance(ended, EndedJob) else _group_text(ended)
    mail.set_content(text, cte="quoted-printable")
    return mail


def recipients(trigger: Trigger) -> tuple[str, ...]:
    """Give whom the mail goes to, `to` before `cc`, each once.

    Raises:
        Unsendable: as `letter`; and where there is no recipient at all.
    """
    lists = [_read(header, text) for header, text in (("To", trigger.to), ("Cc", trigger.cc)) if text and text.strip()]
    found = tuple(dict.fromkeys(_spec(address) for given in lists for address in given))
    if not found:
        raise Unsendable("the trigger names no recipient")
    if len(found) > MAX_RECIPIENTS:
        raise Unsendable(f"the trigger names {len(found)} recipients; the limit is {MAX_RECIPIENTS}")
    return found


def _read(header: str, text: str) -> list[Address]:
    try:
        return addresses(text)
    except ValueError:
        raise Unsendable(f"the trigger's {header.lower()} is not a list of mail addresses") from None


def _domain(address: Address) -> str:
    domain = address.address.rpartition("@")[2]
    if domain.isascii():
        return domain
    try:
        return domain.encode("idna").decode()
    except UnicodeError:
        raise Unsendable("a mail address has no valid domain") from None


def _local(address: Address) -> str:
    local = address.address.rpartition("@")[0]
    if not local.isascii():
        raise Unsendable("a mail address has characters beyond ASCII before its @, which we can't send to")
    return local


def _spec(address: Address) -> str:
    return f"{_local(address)}@{_domain(address)}"


def _header_address(address: Address) -> HeaderAddress:
    return HeaderAddress(_CONTROLS.sub(" ", address.name).strip(), _local(address), _domain(address))


def _message_id(text: str | None) -> str | None:
    """Give the Message-ID in its brackets; None where it isn't one: the mail is then a thread of its own."""
    found = _MESSAGE_ID.fullmatch((text or "").strip())
    return f"<{found[1]}>" if found else None


def _subject(ended: EndedJob) -> str:
    return f"[{_label(ended)}] build {ended.status}"


def _label(ended: EndedJob) -> str:
    """Name the build as builds.sr.ht does, by its tags; without tags, by its project."""
    named = "/".join(ended.facts.tags) or f"{ended.facts.owner}/{ended.facts.project}"
    return _CONTROLS.sub(" ", named)[:_MAX_SUBJECT_TAGS]


def _text(ended: EndedJob) -> str:
    facts = ended.facts
    parts = [f"{_label(ended)} #{facts.job}: {ended.status.upper()} ({ended.reason})"]
    if ended.detail:
        parts.append(_plain(ended.detail))
    if facts.note:
        parts.append(_plain(facts.note))
    # builds.sr.ht leaves tasks with an underscore out of the mail
    tasks = [_task_lines(task) for task in ended.tasks if not task.name.startswith("_")]
    if tasks:
        parts.append("\n".join(tasks))
    if ended.setup_log_url:
        parts.append(f"Setup log: {_plain(ended.setup_log_url)}")
    if ended.artifacts:
        parts.append("\n".join(["Artifacts:", *_artifact_lines(ended)]))
    if facts.visibility is Visibility.PRIVATE:
        parts.append(f"The job is private: its links open once they are signed, by `leveret links {facts.job}`.")
    return "\n\n".join(parts) + "\n"


def _group_subject(ended: EndedGroup) -> str:
    return f"[{_group_label(ended)}] group {ended.group.state}"


def _group_label(ended: EndedGroup) -> str:
    return _CONTROLS.sub(" ", f"{ended.group.owner}/{ended.group.group}")


def _group_text(ended: EndedGroup) -> str:
    group = ended.group
    parts = [f"{_group_label(ended)}: {group.state.upper()}"]
    if group.note:
        parts.append(_plain(group.note))
    parts.append("\n".join(f"{_JOB_MARKS.get(job.status, '✗')} #{job.job}, {job.status}" for job in group.jobs))
    return "\n\n".join(parts) + "\n"


def _task_lines(task: TaskResult) -> str:
    facts = [_plain(task.name), task.state.value]
    if task.seconds is not None:
        facts.append(_duration(task.seconds))
    if task.state is TaskState.FAILED and task.exit_status is not None:
        facts.append(f"exit status {task.exit_status}")
    line = f"{_MARKS.get(task.state, '-')} {', '.join(facts)}"
    return f"{line}\n  {_plain(task.log_url)}" if task.log_url else line


def _artifact_lines(ended: EndedJob) -> Iterable[str]:
    for artifact in ended.artifacts:
        yield f"  {_plain(artifact.url or artifact.name)} ({artifact.bytes} bytes, sha256 {artifact.sha256})"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _plain(text: str) -> str:
    """Give text of lines without other control characters."""
    return "\n".join(_CONTROLS.sub(" ", line) for line in text.splitlines())
