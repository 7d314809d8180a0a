"""The webhook's body and its signature, verified as a receiver would."""

import base64
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from leveret_notifier.payload import payload
from leveret_notifier.signing import Signer, new_nonce, new_seed
from leveret_proto.messages import (
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

LINK = "abcdefghijklmnop"


def ended(owner: str = "ada", note: str | None = "a note") -> EndedJob:
    return EndedJob(
        facts=JobFacts(job=7, owner=owner, project="engine", submission="s-1", link=LINK, note=note),
        status=JobStatus.FAILED,
        reason=Reason.TASK_FAILED,
        worker="mill-1",
        tasks=(
            TaskResult(name="build", state=TaskState.SUCCESS, exit_status=0, log_url="http://logs/build"),
            TaskResult(name="check", state=TaskState.SKIPPED),
        ),
        setup_log_url="http://logs/setup",
        ended_at=datetime(2026, 1, 2, tzinfo=UTC),
    )


def test_the_body_has_the_shape_of_builds_sr_ht() -> None:
    assert json.loads(payload(ended())) == {
        "id": 7,
        "status": "failed",
        "setup_log": "http://logs/setup",
        "tasks": [
            {"name": "build", "status": "success", "log": "http://logs/build"},
            {"name": "check", "status": "skipped", "log": None},
        ],
        "note": "a note",
        "runner": "mill-1",
        "owner": {"canonical_name": "~ada", "name": "ada"},
    }


def test_the_body_of_a_group_has_its_jobs_and_how_they_ended() -> None:
    members = (GroupMember(job=7, status=JobStatus.SUCCESS), GroupMember(job=9, status=JobStatus.CANCELLED))
    group = GroupView(owner="~ada", group="release", state="failed", size=2, jobs=members, note="first")
    assert json.loads(payload(EndedGroup(group=group, ended_at=datetime(2026, 1, 2, tzinfo=UTC)))) == {
        "group": "release",
        "status": "failed",
        "jobs": [{"id": 7, "status": "success"}, {"id": 9, "status": "cancelled"}],
        "note": "first",
        "owner": {"canonical_name": "~ada", "name": "ada"},
    }


def test_an_owner_with_a_tilde_does_not_get_a_second_one() -> None:
    assert json.loads(payload(ended(owner="~ada")))["owner"] == {"canonical_name": "~ada", "name": "ada"}


def test_a_job_without_note_or_worker_has_null() -> None:
    body = json.loads(payload(ended(note=None).model_copy(update={"worker": None, "setup_log_url": None})))
    assert (body["note"], body["runner"], body["setup_log"]) == (None, None, None)


@given(st.binary(max_size=300))
def test_a_receiver_can_verify_the_signature_and_sees_a_change(body: bytes) -> None:
    signer = Signer(new_seed())
    headers = signer.headers(body, new_nonce())
    key = VerifyKey(base64.b64decode(signer.public_key))
    signature = base64.b64decode(headers["X-Payload-Signature"])
    nonce = headers["X-Payload-Nonce"].encode()
    key.verify(body + nonce, signature)
    with pytest.raises(BadSignatureError):
        key.verify(body + b"x" + nonce, signature)


def test_signing_is_that_of_rfc_8032() -> None:
    """RFC 8032 section 7.1, test 2: the one-byte message 0x72; here the nonce is that byte and the body empty."""
    seed = base64.b64encode(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")).decode()
    signature = (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    made = Signer(seed).headers(b"", "r")["X-Payload-Signature"]
    assert base64.b64decode(made).hex() == signature


def test_nonces_differ() -> None:
    assert len({new_nonce() for _ in range(100)}) == 100


@pytest.mark.parametrize("seed", ["", "not base64!", base64.b64encode(b"short").decode()])
def test_a_bad_key_is_refused_without_being_shown(seed: str) -> None:
    with pytest.raises(ValueError, match="signing key") as error:
        Signer(seed)
    assert not seed or seed not in str(error.value)


def test_the_manuals_example_verifies() -> None:
    manual = Path(__file__).parents[3].joinpath("docs/notifications.md").read_text()
    found = re.search(r"```python\n(.*?)```", manual, re.DOTALL)
    assert found is not None
    example: dict[str, Any] = {}
    exec(compile(found[1], "docs/notifications.md", "exec"), example)
    signer = Signer(new_seed())
    body = payload(ended())
    headers = signer.headers(body, new_nonce())
    given = {"nonce": headers["X-Payload-Nonce"], "signature": headers["X-Payload-Signature"]}
    assert example["is_genuine"](signer.public_key, body, **given)
    assert not example["is_genuine"](signer.public_key, body + b" ", **given)
    assert not example["is_genuine"](signer.public_key, body, **given | {"signature": "nonsense"})
