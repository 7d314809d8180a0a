from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_proto import keys
from leveret_proto.asyncapi import EVENT_KEYS
from leveret_proto.capability import capability_key
from leveret_proto.messages import REGISTRY
from leveret_proto.topology import DISPATCHER_WORDS, LOGSINK_WORDS
from leveret_proto.words import MAX_KEY

NAME = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
JOB = st.integers(1, 2**63 - 1)
ATTEMPT = st.integers(1, 2**31 - 1)

# Each as long as leveret_proto.base allows.
LONG_NAME = "n" * 64
LONG_WORD = "w" * 128
LONG_IMAGE = "i" * 80
LONG_JOB = 2**63 - 1
LONG_ATTEMPT = 2**31 - 1
SESSION = "0198c0de-0000-7000-8000-000000000001"
LONGEST = {
    "submission": keys.submission(LONG_NAME, LONG_WORD),
    "worker": keys.worker(LONG_NAME),
    "grant": keys.grant(capability_key("a" * 64, LONG_IMAGE, kvm=True), LONG_NAME, SESSION),
    "control": keys.control(LONG_NAME, SESSION),
    "status": keys.status(LONG_NAME, LONG_JOB, LONG_ATTEMPT),
    "command": keys.command("history", LONG_NAME),
    "artifact_chunk": keys.artifact_chunk(LONG_NAME, LONG_JOB, LONG_ATTEMPT),
    "log_chunk": keys.log_chunk(LONG_NAME, LONG_JOB, LONG_ATTEMPT, LONG_WORD),
    "tail": keys.tail("unlisted", LONG_NAME, LONG_JOB, LONG_WORD),
    "job_event": keys.job_event("unlisted", LONG_NAME, LONG_JOB, "cancelled"),
    "task_event": keys.task_event("unlisted", LONG_NAME, LONG_JOB, LONG_WORD, "pending"),
    "log_event": keys.log_event("unlisted", LONG_NAME, LONG_JOB, LONG_WORD, "sealed"),
    "delivery_event": keys.delivery_event("unlisted", LONG_NAME, LONG_JOB, "delivered"),
    "submission_event": keys.submission_event("unlisted", LONG_NAME),
    "group_event": keys.group_event("unlisted", LONG_NAME, "g" * 128, "success"),
    "worker_event": keys.worker_event(LONG_NAME, "draining"),
}


@given(NAME, NAME)
def test_submission_keys_parse_back(owner: str, project: str) -> None:
    assert keys.parse_submission(keys.submission(owner, project)) == (owner, project)


@given(NAME, JOB, ATTEMPT)
def test_status_keys_parse_back(worker: str, job: int, attempt: int) -> None:
    assert keys.parse_status(keys.status(worker, job, attempt)) == (worker, job, attempt)


@given(NAME, JOB, ATTEMPT, NAME)
def test_chunk_keys_parse_back(worker: str, job: int, attempt: int, task: str) -> None:
    read = keys.parse_log_chunk(keys.log_chunk(worker, job, attempt, task))
    assert read == (job % keys.PARTITIONS, worker, job, attempt, task)
    read = keys.parse_artifact_chunk(keys.artifact_chunk(worker, job, attempt))
    assert read == (job % keys.PARTITIONS, worker, job, attempt, "")


@given(NAME, NAME)
def test_command_and_worker_keys_parse_back(name: str, owner: str) -> None:
    assert keys.parse_command(keys.command(name, owner)) == (name, owner)
    assert keys.parse_worker(keys.worker(name)) == name


@pytest.mark.parametrize("kind", LONGEST)
def test_the_longest_key_of_a_kind_fits(kind: str) -> None:
    assert len(LONGEST[kind]) <= MAX_KEY


def test_every_builder_is_tried_at_its_longest() -> None:
    not_of_a_message = {"partition", "command_word"}
    builders = {
        name
        for name, found in vars(keys).items()
        if callable(found) and getattr(found, "__module__", "") == keys.__name__ and name.islower()
        if not name.startswith(("_", "parse_"))
    }
    assert builders - not_of_a_message == set(LONGEST)


HOSTILE = [
    "", ".", "..", "a", "a.b.c.d.e.f", "#", "*.1.1", "w1.1", "w1.1.1.1", "w1.x.1", "w1.1.-1", "w1.1.1e3", "w1.1.1 ",
    "w1.١.1", "w1.1.9223372036854775808",
    "w1.1.9999999999999999999999", "w%31.1.1", "w1\n.1.1", "w1.1.1\n", "%FF.1.1", "%.1.1", "é.1.1",
    ".1.1", "w" * 129 + ".1.1",
]  # fmt: skip


@pytest.mark.parametrize("key", HOSTILE)
def test_hostile_status_keys_are_refused(key: str) -> None:
    with pytest.raises(keys.RoutingKeyError):
        keys.parse_status(key)


@pytest.mark.parametrize(
    "key", ["02.w1.1.1.build", "1x.w1.1.1.build", "16.w1.16.1.build", "01.w1.1.1", "01.w1.1.1.a.b"]
)
def test_chunks_under_a_wrong_key_are_refused(key: str) -> None:
    with pytest.raises(keys.RoutingKeyError):
        keys.parse_log_chunk(key)


PARSERS: list[Callable[[str], object]] = [
    keys.parse_submission, keys.parse_status, keys.parse_log_chunk, keys.parse_artifact_chunk, keys.parse_command,
    keys.parse_worker,
]  # fmt: skip


@given(st.text(st.sampled_from("aw1.0%2EFf#*\n\x00é"), max_size=24), st.sampled_from(PARSERS))
def test_a_parser_raises_nothing_else(key: str, parse: Callable[[str], object]) -> None:
    with suppress(keys.RoutingKeyError):
        parse(key)


def test_the_documented_event_keys_are_those_that_are_published() -> None:
    words = {"visibility": "public", "owner": "~ada", "job": 7, "task": "build", "worker": "w1", "group": "g"}
    made = {
        "job.event.v1": (keys.job_event("public", "~ada", 7, "failed"), {"status": "failed"}),
        "task.event.v1": (keys.task_event("public", "~ada", 7, "build", "failed"), {"status": "failed"}),
        "log.event.v1": (keys.log_event("public", "~ada", 7, "build", "gap"), {"status": "gap"}),
        "delivery.event.v1": (keys.delivery_event("public", "~ada", 7, "failed"), {"status": "failed"}),
        "submission.event.v1": (keys.submission_event("public", "~ada"), {}),
        "worker.event.v1": (keys.worker_event("w1", "lost"), {"state": "lost"}),
        "group.event.v1": (keys.group_event("public", "~ada", "g", "failed"), {"status": "failed"}),
    }
    for type_, (key, state) in made.items():
        assert EVENT_KEYS[type_].format(**words, **state) == key
    assert made.keys() == EVENT_KEYS.keys()


def test_every_command_goes_under_a_word_that_a_service_takes() -> None:
    commands = {type_ for type_ in REGISTRY if type_.startswith("command.")}
    assert {keys.command_word(type_) for type_ in commands} == {*DISPATCHER_WORDS, *LOGSINK_WORDS}
    assert keys.command_word("command.dead-list.v1") == "dead"
