"""Submissions that become no job: one clear answer, the service unharmed, the message filed."""

import time
from pathlib import Path

import pytest

from leveret_client import SubmissionFailed
from leveret_proto.messages import JobStatus, SubmissionEvent, SubmissionRejected
from tests.support.system import System, manifest

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Wall time, on a machine that does other things as well; the processor time is held to a second.
LIMIT = 15.0
ALIAS_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


async def rejected(system: System, body: bytes | str) -> SubmissionRejected:
    with pytest.raises(SubmissionFailed) as failed:
        await system.client.submit(body, project="p")
    return failed.value.answer


async def test_three_faults_get_one_answer_that_names_them_all(system: System) -> None:
    answer = await rejected(
        system,
        "image: test/process\n"
        "packages: make\n"
        "tasks:\n"
        "  - build: make\n"
        "  - Not A Name: make\n"
        "triggers:\n"
        "  - action: fax\n",
    )
    assert answer.reason == "faults"
    errors = [fault for fault in answer.diagnostics if fault.severity == "fault"]
    assert [fault.line for fault in errors] == [2, 5, 7]
    assert all(fault.message and fault.column for fault in errors)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(bytes(range(256)) * 4, id="no-yaml"),
        pytest.param(b"[" * (10 * 1024 * 1024), id="ten-mebibytes-of-nesting"),
        pytest.param(b"[" * 16_000, id="nesting-within-the-size"),
        pytest.param(ALIAS_BOMB.encode(), id="alias-bomb"),
    ],
)
async def test_hostile_bytes_are_rejected_at_once_and_filed(system: System, body: bytes) -> None:
    intake = system.running["intake"].pid
    (before,) = await system.rows("select max(id) as last from dispatch.dead")
    used, asked = processor_seconds(intake), time.monotonic()

    answer = await rejected(system, body)

    assert time.monotonic() - asked < LIMIT
    assert processor_seconds(intake) - used < 1.0
    assert answer.reason == "unreadable"
    assert answer.message
    told = system.journal.unnumbered
    await system.journal.until(
        lambda: any(isinstance(e, SubmissionEvent) and e.message == answer.message for e in told),
        "the rejection's event",
    )
    (filed,) = await system.until_rows("select * from dispatch.dead where id > $1", before["last"] or 0)
    assert answer.message in filed["reason"]
    assert (filed["queue"], filed["bytes"]) == ("leveret.intake.submissions", len(body))
    assert filed["body"] == body[: 64 * 1024]

    assert system.running["intake"].pid == intake
    assert system.running["intake"].running
    job = await system.submit(manifest(("a", "true")))
    assert (await system.journal.ended(job)).status is JobStatus.SUCCESS


def processor_seconds(pid: int) -> float:
    """What the process has used (proc(5), /proc/PID/stat, in ticks of a hundredth)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
