"""The pure core of intake: envelope and body in, a decision out."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_intake.decide import HEADERS, Accept, Envelope, Reject, conflict, decide, unknown_jobs
from leveret_proto.base import Visibility
from leveret_proto.capability import Requirement
from leveret_proto.keys import submission
from leveret_proto.manifest import DEFAULT_LIMITS, Limits
from leveret_runtime.hostile_frames import SUBSTITUTE, UNREADABLE_HEADERS

GOOD = b"image: debian/trixie\ntasks:\n  - build: make\n"
KEY = submission("~alice", "scdoc")


def judged(body: bytes = GOOD, limits: Limits = DEFAULT_LIMITS, **envelope: Any) -> Accept | Reject:
    return decide(Envelope(**{"routing_key": KEY} | envelope), body, limits)


def accepted(body: bytes = GOOD, **envelope: Any) -> Accept:
    decision = judged(body, **envelope)
    assert isinstance(decision, Accept), decision
    return decision


def rejected(body: bytes = GOOD, **envelope: Any) -> Reject:
    decision = judged(body, **envelope)
    assert isinstance(decision, Reject), decision
    return decision


@pytest.mark.parametrize("content_type", ["", "application/yaml", "Application/YAML; charset=utf-8", "text/plain"])
def test_a_raw_manifest_is_accepted_under_any_of_its_content_types(content_type: str) -> None:
    assert accepted(content_type=content_type).manifest.image == "debian/trixie"


def test_the_headers_of_a_raw_manifest_are_its_circumstances() -> None:
    headers = {"note": "v1", "tags": ["a", "b"], "visibility": "public", "priority": 3, "secrets": False}
    told = accepted(headers=headers).submission
    assert (told.note, told.tags, told.visibility, told.priority, told.secrets) == (
        "v1", ("a", "b"), Visibility.PUBLIC, 3, False,
    )  # fmt: skip


def test_tags_may_be_a_text_with_commas_for_tools_that_send_no_lists() -> None:
    assert accepted(headers={"tags": "a, b,"}).submission.tags == ("a", "b")


@pytest.mark.parametrize("jobs", [[4, 17], "4, 17", ["4", "17"], "4,17,"])
def test_headers_name_the_group_and_what_must_succeed_first(jobs: object) -> None:
    decision = accepted(headers={"depends_on": jobs, "group": "release 1.0", "priority": 3})
    assert (decision.submission.depends_on, decision.submission.group) == ((4, 17), "release 1.0")
    assert decision.warnings == ()


def test_json_carries_all_of_it_and_a_group_and_dependencies() -> None:
    body = json.dumps({"manifest": GOOD.decode(), "depends_on": [4], "group": "g", "note": "n", "new": 1}).encode()
    told = accepted(body, content_type="application/json", type="job.submission.v1").submission
    assert (told.depends_on, told.group, told.note) == ((4,), "g", "n")


def test_neither_headers_nor_json_can_name_the_owner() -> None:
    assert accepted(headers={"owner": "~mallory", "project": "x"}).owner == "~alice"
    body = json.dumps({"manifest": GOOD.decode(), "owner": "~mallory", "project": "x"}).encode()
    decision = accepted(body, content_type="application/json")
    assert (decision.owner, decision.project) == ("~alice", "scdoc")


def test_the_requirement_is_canonical_and_has_the_extension_in_it() -> None:
    body = b"image: debian/stable\narch: amd64\ntasks: [{a: b}]\nleveret: {requires: {kvm: true, tags: [big]}}\n"
    decision = judged(body, Limits(image_synonyms={"debian/stable": "debian/trixie"}))
    assert isinstance(decision, Accept)
    assert decision.requirement == Requirement(arch="x86_64", image="debian/trixie", kvm=True, tags=("big",))
    assert accepted().requirement.arch == "x86_64"


def test_every_fault_comes_back_with_its_line_and_it_is_no_dead_letter() -> None:
    decision = rejected(b"image: [1]\narch: {}\ntasks: 3\n", headers={"visibility": "public"}, message_id="m")
    assert [found.line for found in decision.answer.diagnostics if found.severity == "fault"] == [1, 2, 3]
    assert (decision.answer.reason, decision.answer.submission, decision.fatal) == ("faults", "m", False)
    assert (decision.owner, decision.project, decision.visibility) == ("~alice", "scdoc", Visibility.PUBLIC)


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xfe\x00",
        b"[" * 10_000_000,
        b"x" * 20_000,
        b"- " * 5_000,
        b"a: &a [x, x, x, x, x, x, x, x, x]\n"
        + b"".join(b"%c: &%c [%s]\n" % (n, n, b", ".join([b"*%c" % (n - 1)] * 9)) for n in range(ord("b"), ord("k"))),
    ],
    ids=["not text", "10 MB of nesting", "too big", "too deep", "alias bomb"],
)
def test_what_is_no_manifest_at_all_is_fatal(body: bytes) -> None:
    decision = rejected(body)
    assert decision.fatal
    assert decision.answer.reason == "unreadable"
    assert decision.answer.diagnostics


@pytest.mark.parametrize(
    "envelope",
    [
        {"routing_key": "alice"},
        {"routing_key": "~alice.a.b"},
        {"routing_key": ".x"},
        {"routing_key": "a%00b.x"},
        {"routing_key": "a" * 65 + ".x"},
        {"message_id": "a\x00b"},
        {"content_type": "image/png"},
        {"content_type": "application/json", "type": "job.event.v1"},
        {"content_type": "application/json"},
        {"headers": {"priority": 1000}},
        {"headers": {"visibility": "everyone"}},
        {"headers": {"tags": ["x" * 129]}},
        {"headers": {"tags": ["a\nb"]}},
        {"headers": {"tags": {"a": "b"}}},
        {"headers": {"note": "a\x00b"}},
        {"headers": {"group": "a\x00b"}},
        {"headers": {"group": "x" * 129}},
        {"headers": {"group": ""}},
        {"headers": {"depends_on": "1, two"}},
        {"headers": {"depends_on": [0]}},
        {"headers": {"depends_on": [2**63]}},
        {"headers": {"depends_on": list(range(1, 66))}},
        {"headers": {UNREADABLE_HEADERS: True}},
        {"message_id": SUBSTITUTE},
    ],
)
def test_an_envelope_that_can_not_be_read_is_fatal_and_says_why(envelope: dict[str, Any]) -> None:
    decision = rejected(**envelope)
    assert decision.fatal
    assert decision.answer.reason == "envelope"
    assert decision.answer.message.isprintable()


def test_a_conflict_names_the_job_and_is_no_dead_letter() -> None:
    decision = conflict(accepted(message_id="m"), 7)
    assert (decision.answer.reason, decision.fatal, decision.owner) == ("conflict", False, "~alice")
    assert "job 7" in decision.answer.message


@pytest.mark.parametrize(("jobs", "named"), [((17,), "is no job 17"), ((17, 19), "are no jobs 17, 19")])
def test_unknown_dependencies_are_named_and_no_dead_letter(jobs: tuple[int, ...], named: str) -> None:
    decision = unknown_jobs(accepted(message_id="m"), jobs)
    assert (decision.answer.reason, decision.answer.submission, decision.fatal) == ("faults", "m", False)
    assert f"there {named} of yours" in decision.answer.message
    assert "that ~alice has submitted before" in decision.answer.message


def test_the_digest_is_of_the_body() -> None:
    assert accepted().digest == accepted(headers={"note": "x"}).digest
    assert accepted().digest != accepted(GOOD + b"\n").digest


_headers = st.dictionaries(
    st.sampled_from([*HEADERS, "other"]),
    st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.lists(st.text()) | st.floats(),
)


@given(
    body=st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")),
    key=st.just(KEY) | st.text(max_size=255),
    content_type=st.sampled_from(["", "application/yaml", "application/json", "x"]),
    type_=st.sampled_from(["", "job.submission.v1"]) | st.text(),
    message_id=st.none() | st.text(max_size=255),
    headers=_headers,
)
def test_no_message_whatever_makes_it_raise(
    body: bytes, key: str, content_type: str, type_: str, message_id: str | None, headers: dict[str, Any]
) -> None:
    decision = decide(Envelope(key, content_type, type_, message_id, None, headers), body, DEFAULT_LIMITS)
    if isinstance(decision, Reject):
        decision.answer.model_dump_json()  # and the answer can be sent
