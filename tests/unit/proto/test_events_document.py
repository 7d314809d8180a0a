"""docs/events.md leaves nothing out that the code knows."""

import re
from pathlib import Path

import pytest

from leveret_proto.messages import (
    REGISTRY,
    DeadDoneReply,
    DeadLetterView,
    DeadListReply,
    DeadRefusal,
    DeliveryEvent,
    ExplainReply,
    GroupEvent,
    GroupMember,
    GroupView,
    JobEvent,
    JobFacts,
    JobMatch,
    JobStatus,
    LogEvent,
    Place,
    Reason,
    SubmissionEvent,
    TailChunk,
    TaskEvent,
    TaskResult,
    TaskState,
    Timings,
    Visibility,
    WorkerEvent,
    WorkersReply,
    WorkerView,
)
from leveret_proto.topology import EVENTS, EXCHANGES

TEXT = (Path(__file__).parents[3] / "docs" / "events.md").read_text()
CODE = set(re.findall(r"`([^`\n]+)`", TEXT))
WORDS = {word for code in CODE for word in code.split()}
PUBLIC = {type_ for exchange in EXCHANGES if exchange.public for type_ in exchange.messages}
SHOWN = (
    JobEvent, TaskEvent, LogEvent, DeliveryEvent, SubmissionEvent, WorkerEvent, JobFacts, TaskResult, Timings,
    TailChunk, GroupEvent, GroupView, GroupMember, ExplainReply, Place, JobMatch, WorkersReply, WorkerView,
    DeadListReply, DeadLetterView, DeadDoneReply, DeadRefusal,
)  # fmt: skip


@pytest.mark.parametrize("names", [Reason, JobStatus, TaskState, Visibility])
def test_every_state_and_reason_is_named(names: type[Reason]) -> None:
    assert {str(name) for name in names} <= WORDS


def test_every_reason_is_explained() -> None:
    explained = re.findall(r"^\| `([a-z-]+)` \| [a-z, ]+ \| .+ \|$", TEXT, re.MULTILINE)
    assert sorted(explained) == sorted([*Reason, "reason"])  # the table's head, too


def test_every_message_that_a_subscriber_or_submitter_meets_is_named() -> None:
    answers = {type_ for type_ in REGISTRY if type_.startswith(("reply.", "submission."))}
    assert PUBLIC | answers <= WORDS | {type_ for type_ in REGISTRY if f"`{type_}`" in TEXT}


@pytest.mark.parametrize("model", SHOWN, ids=lambda model: model.__name__)
def test_every_field_is_named(model: type[JobEvent]) -> None:
    assert set(model.model_fields) <= WORDS


def test_every_type_named_exists() -> None:
    named = {word for word in WORDS if re.fullmatch(r"[a-z]+(\.[a-z]+)+\.v1", word)}
    assert named and named <= REGISTRY.keys()
    assert f"`{EVENTS}`" in TEXT
