"""What `explain`, `workers` and `dead` show for people, and that nothing they are told can obey on a terminal."""

import base64
from datetime import UTC, datetime
from typing import Any

import pytest

from leveret_client.commands.dead import _show_letter, _show_list
from leveret_client.commands.drain import show_standing
from leveret_client.commands.workers import show_explanation, show_workers
from leveret_client.output import Output
from leveret_proto.base import JobFacts
from leveret_proto.capability import Capabilities, ImageOffer, Lack
from leveret_proto.messages import (
    DeadLetterView,
    DeadListReply,
    DeadReply,
    ExplainReply,
    Halt,
    JobMatch,
    JobStatus,
    JobView,
    Place,
    Reason,
    WorkerReply,
    WorkerView,
)

AT = datetime(2026, 3, 14, tzinfo=UTC)
DRAINED = Halt(kind="drained", why="drained by ~ops\x1b]0;title\x07 b\nc", since=AT)
HOSTILE = "a\x1b]0;title\x07b\nc"


def job(reason: Reason, detail: str | None = None) -> JobView:
    facts = JobFacts(job=7, owner="~a", project="p", submission="m", link="x" * 32)
    return JobView(facts=facts, status=JobStatus.PENDING, reason=reason, detail=detail, submitted_at=AT)


def test_an_explanation_says_place_dependencies_and_workers(capsys: pytest.CaptureFixture[str]) -> None:
    reply = ExplainReply(
        job=job(Reason.LIMIT),
        place=Place(place=2, waiting=5, owners=3, running=4, limit=4),
        depends_on=(3, 5),
        workers=(
            JobMatch(worker="w1", slots=4, free=1),
            JobMatch(worker="w2", slots=4, free=0, draining=True),
            JobMatch(worker="w4", slots=4, free=4, draining=True, halt=DRAINED),
            JobMatch(worker="w3", slots=4, free=0, lack=Lack.KVM, lacks="x86_64"),
        ),
    )
    show_explanation(Output(as_json=False), reply)
    others = "2 other owners wait for such workers"
    assert capsys.readouterr().out.splitlines() == [
        "job 7  pending  limit",
        "  waits for   jobs 3, 5",
        f"  place       2 of the owner's 5 such jobs; 4 of at most 4 of its jobs run; {others}",
        "  worker      w1  could run it, 1 of 4 slots free",
        "  worker      w2  draining: it takes no more jobs",
        "  worker      w4  drained: drained by ~ops�]0;title� b�c",
        "  worker      w3  lacks kvm x86_64",
    ]


def test_an_explanation_leaves_out_what_is_not_so(capsys: pytest.CaptureFixture[str]) -> None:
    place = Place(place=1, waiting=1, owners=1, running=0)
    show_explanation(Output(as_json=False), ExplainReply(job=job(Reason.NO_WORKER, HOSTILE), place=place))
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\x07" not in out
    assert out.splitlines()[1:] == ["  place       1 of the owner's 1 such jobs; 0 of its jobs run"]


def test_workers_in_a_pipe_are_lines_of_fields(capsys: pytest.CaptureFixture[str]) -> None:
    offer = Capabilities(images=(ImageOffer(arch="x86_64", name="debian/trixie", digest="00"),), kvm=("x86_64",),
                         tags=("disk=large", HOSTILE))  # fmt: skip
    found = WorkerView(worker="w1", capabilities=offer, slots=4, free=1, running=3, draining=True, since=AT)
    show_workers(Output(as_json=False), (found,))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split("\t")[:7] == ["w1", "draining", "1", "4", "3", "x86_64:debian/trixie", "x86_64"]
    assert "\x1b" not in line


def test_workers_that_are_given_no_jobs_say_why(capsys: pytest.CaptureFixture[str]) -> None:
    view = WorkerView(
        worker="w1", capabilities=Capabilities(), slots=4, free=4, running=0, draining=True, since=AT, halt=DRAINED
    )
    away = view.model_copy(update={"worker": "w2", "live": False})
    show_workers(Output(as_json=False), (view, away))
    fields = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [(one[0], one[1]) for one in fields] == [("w1", "drained"), ("w2", "drained, away")]
    assert "drained by ~ops" in fields[0][-1] and "\x1b" not in fields[0][-1]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (WorkerReply(worker="w1", live=True, running=1), "worker w1 is given jobs; 1 job runs there\n"),
        (WorkerReply(worker="w1", live=False, running=0), "worker w1 (away) is given jobs; 0 jobs run there\n"),
    ],
)
def test_the_answer_to_a_drain_says_what_still_runs(
    capsys: pytest.CaptureFixture[str], reply: WorkerReply, said: str
) -> None:
    show_standing(Output(as_json=False), reply)
    assert capsys.readouterr().out == said
    show_standing(Output(as_json=False), reply.model_copy(update={"halt": DRAINED}))
    assert "is given no jobs: drained by ~ops" in capsys.readouterr().out


def letter(**changes: Any) -> DeadLetterView:
    given: dict[str, Any] = {
        "letter": 31, "queue": "leveret.intake.submissions", "reason": "no manifest", "service": None, "type": "t",
        "message_id": "m", "exchange": "leveret.submit", "key": "~a.p", "bytes": 70_000, "sha256": "0" * 64,
        "whole": False, "filed_at": AT,
    }  # fmt: skip
    return DeadLetterView.model_validate(given | changes)


def test_a_letter_is_shown_with_what_was_kept_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    body = base64.b64encode(b"image: x\n\x1b]0;title\x07\xff").decode()
    _show_letter(Output(as_json=False), DeadReply(letter=letter(), history="{}", body=body))
    out = capsys.readouterr().out
    assert "  given up by  broker\n" in out
    assert "68.4 KiB, of which 20 bytes are kept" in out
    assert "image: x\n" in out and "\x1b" not in out and "\x07" not in out


def test_letters_in_a_pipe_are_lines_of_fields(capsys: pytest.CaptureFixture[str]) -> None:
    reply = DeadListReply(letters=(letter(reason=HOSTILE, service="intake"),), more=True, total=2)
    _show_list(Output(as_json=False), reply)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split("\t")[2:6] == ["leveret.intake.submissions", "intake", "t", "70000"]
    assert "\x1b" not in line
