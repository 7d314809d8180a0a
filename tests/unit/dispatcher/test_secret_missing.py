"""A job whose secret can't be given ends at once, wherever it stands; and what secrets require of a worker."""

from dataclasses import replace

import pytest

from leveret_dispatcher.lifecycle import Course, Fate, SecretMissing, accept, step
from leveret_dispatcher.secret_granting import requiring_secrets
from leveret_dispatcher.sessions import believed_key
from leveret_proto.capability import SECRETS_TAG, Capabilities
from leveret_proto.envelope import Unreadable
from leveret_proto.messages import JobStatus, Reason, WorkerBeat
from leveret_runtime.sealing import KeyPair
from tests.integration.dispatcher.dispatcher_lab import ready_job, token

MISSING = SecretMissing("'deploy key': no such secret of ~alice")
WAITING = accept(("build",), cancelled=False).course
QUEUED = replace(WAITING, status=JobStatus.QUEUED, reason=Reason.GRANTED, attempt=1, worker="w1")


def test_a_waiting_job_fails_and_says_which_secret() -> None:
    end = step(WAITING, MISSING)
    assert (end.course.status, end.course.reason) == (JobStatus.FAILED, Reason.SECRET_MISSING)
    assert end.course.detail == MISSING.why
    assert end.fate is None and len(end.told) == 1


def test_a_granted_job_fails_and_its_grant_is_void() -> None:
    end = step(QUEUED, MISSING)
    assert (end.course.status, end.fate) == (JobStatus.FAILED, Fate.LOST)


def test_one_to_be_cancelled_is_cancelled() -> None:
    assert step(replace(QUEUED, cancelling=True), MISSING).course.status is JobStatus.CANCELLED


@pytest.mark.parametrize("status", [JobStatus.RUNNING, JobStatus.SUCCESS, JobStatus.CANCELLED])
def test_one_that_has_its_secrets_goes_on(status: JobStatus) -> None:
    course = Course(status, Reason.STARTED)
    assert step(course, MISSING).course == course


def test_secrets_require_a_worker_to_seal_them_to() -> None:
    named = {"secrets": ["deploy key"]}
    assert SECRETS_TAG in requiring_secrets(ready_job(1, manifest=named)).requirement.tags
    once = requiring_secrets(requiring_secrets(ready_job(1, manifest=named)))
    assert once.requirement.tags.count(SECRETS_TAG) == 1
    assert requiring_secrets(ready_job(1)).requirement.tags == ()
    assert requiring_secrets(ready_job(1, manifest=named, secrets=False)).requirement.tags == ()


@pytest.mark.parametrize("key", [None, "A" * 44, "A" * 43 + "="])
def test_a_session_that_takes_secrets_must_have_a_key(key: str | None) -> None:
    with pytest.raises(Unreadable):
        believed_key(beat(key))
    believed_key(beat(KeyPair().public_key))


def beat(public_key: str | None) -> WorkerBeat:
    return WorkerBeat(
        worker="w1", session=token(), spool=token(), beat=1, capabilities=Capabilities(tags=(SECRETS_TAG,)), slots=1,
        public_key=public_key,
    )  # fmt: skip
