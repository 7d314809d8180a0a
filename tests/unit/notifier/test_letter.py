"""The mail: what it says, whom it goes to, and that nothing in it can forge a header."""

from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_notifier.ended import Ended
from leveret_notifier.letter import MAX_RECIPIENTS, letter, recipients
from leveret_notifier.outcome import Unsendable
from leveret_proto.manifest import Trigger
from leveret_proto.manifest.addresses import Address
from leveret_proto.messages import (
    Artifact,
    EndedGroup,
    EndedJob,
    GroupMember,
    GroupView,
    JobFacts,
    JobStatus,
    Reason,
    TaskResult,
    TaskState,
)

SENDER = Address("Leveret", "leveret@builds.example.org")
DELIVERY = UUID("0190b8a5-0000-5000-8000-000000000001")
HEADERS = {
    "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "X-Leveret-Delivery",
    "Content-Type", "Content-Transfer-Encoding", "MIME-Version",
}  # fmt: skip


def job(**given_facts: object) -> EndedJob:
    facts = {"job": 7, "owner": "ada", "project": "engine", "submission": "s", "link": "abcdefghijklmnop"}
    return EndedJob(
        facts=JobFacts.model_validate(facts | given_facts),
        status=JobStatus.FAILED,
        reason=Reason.TASK_FAILED,
        detail="task check failed",
        tasks=(
            TaskResult(name="build", state=TaskState.SUCCESS, exit_status=0, seconds=75.2, log_url="http://l/build"),
            TaskResult(name="check", state=TaskState.FAILED, exit_status=3, seconds=2.0, log_url="http://l/check"),
            TaskResult(name="deploy", state=TaskState.SKIPPED),
            TaskResult(name="_hidden", state=TaskState.SKIPPED),
        ),
        artifacts=(Artifact(path="out/tool", name="tool", bytes=12, sha256="0" * 64, url="http://l/tool"),),
        setup_log_url="http://l/setup",
        ended_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )


def mail(**fields: str | None) -> Trigger:
    return Trigger.model_validate({"action": "email", "condition": "always"} | fields)


def sent(ended: Ended, trigger: Trigger) -> EmailMessage:
    """Read the mail as a receiver would, from its bytes."""
    raw = letter(ended, trigger, SENDER, DELIVERY).as_bytes()
    assert max(len(line) for line in raw.split(b"\r\n")) <= 998
    read = message_from_bytes(raw, policy=policy.default)
    assert isinstance(read, EmailMessage)
    return read


def test_the_mail_tells_the_status_the_tasks_and_the_links() -> None:
    read = sent(job(note="fix the\nengine"), mail(to="Ada <ada@example.org>", cc="~ada/dev@lists.example.org"))
    assert read["Subject"] == "[ada/engine] build failed"
    assert read["From"] == "Leveret <leveret@builds.example.org>"
    assert read["To"] == "Ada <ada@example.org>"
    assert read["Cc"] == "~ada/dev@lists.example.org"
    assert read["Message-ID"] == f"<{DELIVERY}@builds.example.org>"
    assert read["Date"] == "Fri, 02 Jan 2026 03:04:05 +0000"
    assert read["In-Reply-To"] is None
    assert read.get_content().splitlines() == [
        "ada/engine #7: FAILED (task-failed)", "",
        "task check failed", "",
        "fix the", "engine", "",
        "✓ build, success, 1 min 15 s", "  http://l/build",
        "✗ check, failed, 2 s, exit status 3", "  http://l/check",
        "- deploy, skipped", "",
        "Setup log: http://l/setup", "",
        "Artifacts:", f"  http://l/tool (12 bytes, sha256 {'0' * 64})",
    ]  # fmt: skip


def test_the_mail_of_a_private_job_says_how_its_links_open() -> None:
    told = sent(job(visibility="private"), mail(to="Ada <ada@example.org>")).get_content().splitlines()
    assert told[-1] == "The job is private: its links open once they are signed, by `leveret links 7`."


def group(name: str = "release", note: str | None = "first\nof all") -> EndedGroup:
    ends = (JobStatus.SUCCESS, JobStatus.FAILED, JobStatus.TIMEOUT, JobStatus.CANCELLED)
    members = tuple(GroupMember(job=number, status=status) for number, status in enumerate(ends, 7))
    view = GroupView(owner="~ada", group=name, state="failed", size=4, jobs=members, note=note)
    return EndedGroup(group=view, ended_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))


def test_the_mail_of_a_group_tells_how_each_job_ended() -> None:
    read = sent(group(), mail(to="Ada <ada@example.org>"))
    assert read["Subject"] == "[~ada/release] group failed"
    assert read["Message-ID"] == f"<{DELIVERY}@builds.example.org>"
    assert read["Date"] == "Fri, 02 Jan 2026 03:04:05 +0000"
    assert read.get_content().splitlines() == [
        "~ada/release: FAILED", "",
        "first", "of all", "",
        "✓ #7, success", "✗ #8, failed", "✗ #9, timeout", "- #10, cancelled",
    ]  # fmt: skip


def test_tags_name_the_build_in_the_subject() -> None:
    assert sent(job(tags=("engine", "commits")), mail(to="a@b.example"))["Subject"] == "[engine/commits] build failed"


def test_every_try_sends_the_same_bytes() -> None:
    first, second = (letter(job(), mail(to="a@b.example"), SENDER, DELIVERY).as_bytes() for _ in range(2))
    assert first == second


def test_copies_alone_are_sent() -> None:
    trigger = mail(cc="a@b.example, B <b@b.example>")
    assert recipients(trigger) == ("a@b.example", "b@b.example")
    read = sent(job(), trigger)
    assert read["To"] is None and read["Cc"] == "a@b.example, B <b@b.example>"


def test_a_recipient_named_twice_gets_one_mail() -> None:
    assert recipients(mail(to="a@b.example, A <a@b.example>", cc="a@b.example")) == ("a@b.example",)


def test_a_domain_beyond_ascii_is_put_in_its_ascii_form() -> None:
    assert recipients(mail(to="a@bücher.example")) == ("a@xn--bcher-kva.example",)
    assert sent(job(), mail(to="a@bücher.example"))["To"] == "a@xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("trigger", "told"),
    [
        (mail(), "names no recipient"),
        (mail(to=" ", cc=""), "names no recipient"),
        (mail(to="nobody"), "trigger's to is not a list"),
        (mail(to="a@b.example", cc="c@d.example\r\nBcc: e@f.example"), "trigger's cc is not a list"),
        (mail(to="é@b.example"), "beyond ASCII"),
        (mail(to="a@b..example"), "trigger's to is not a list"),
        (mail(to="a@" + "ü" * 80 + ".example"), "no valid domain"),
        (mail(to=", ".join(f"a{n}@b.example" for n in range(MAX_RECIPIENTS + 1))), "the limit is"),
    ],
)
def test_what_is_no_address_is_refused_without_repeating_it(trigger: Trigger, told: str) -> None:
    with pytest.raises(Unsendable, match=told) as error:
        recipients(trigger)
    assert "example" not in str(error.value)


@pytest.mark.parametrize(
    ("given_id", "header"),
    [
        ("<x.1@host.example>", "<x.1@host.example>"),
        ("x.1@host.example", "<x.1@host.example>"),
        (f"<{'long' * 50}@host.example>", f"<{'long' * 50}@host.example>"),
        ("<x@y>\r\nBcc: z@y", None),
        ("<x@y> <z@y>", None),
        ("no id", None),
        ("", None),
    ],
)
def test_in_reply_to_is_one_message_id_or_absent(given_id: str, header: str | None) -> None:
    assert sent(job(), mail(to="a@b.example", in_reply_to=given_id))["In-Reply-To"] == header


TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=60)


@given(tag=TEXT, note=TEXT, name=TEXT, answered=TEXT)
def test_nothing_a_stranger_writes_makes_or_breaks_a_header(tag: str, note: str, name: str, answered: str) -> None:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    trigger = mail(to=f'"{quoted}" <a@b.example>', in_reply_to=answered)
    try:
        read = sent(job(tags=(f"{tag}\r\nBcc: evil@b.example",), note=note), trigger)
    except Unsendable:
        return  # a name that is none
    assert set(sent(group(f"{tag[:3]}\r\nBcc: evil@b.example", note), trigger).keys()) - {"In-Reply-To"} == HEADERS
    assert set(read.keys()) - {"In-Reply-To"} == HEADERS
    assert len(read["To"].addresses) == 1 and read["To"].addresses[0].addr_spec == "a@b.example"
    assert "7" in read.get_content()
