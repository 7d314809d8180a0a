"""Dependencies and groups through all five services: in order, cancelled behind a failure, told once as a group."""

import re
from pathlib import Path
from uuid import uuid4

import pytest

from leveret_client import SubmissionFailed, exits
from leveret_proto.messages import GroupEvent, JobEvent, JobStatus, Reason
from tests.support.sinks import HttpSink, MailSink
from tests.support.system import System, manifest
from tests.system.test_system_cli import leveret

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def chain(system: System, *scripts: str) -> list[int]:
    """Submit builds of which each depends on the one before."""
    jobs: list[int] = []
    for script in scripts:
        jobs.append(await system.submit(manifest(("build", script)), depends_on=jobs[-1:]))
    return jobs


async def group_end(system: System, name: str) -> GroupEvent:
    def told() -> list[GroupEvent]:
        events = [event for event in system.journal.unnumbered if isinstance(event, GroupEvent)]
        return [event for event in events if event.group.group == name]

    await system.journal.until(lambda: bool(told()), f"the end of group {name}")
    (event,) = told()
    return event


async def test_what_depends_on_a_job_runs_after_it(system: System) -> None:
    gate = system.gate()
    jobs = await chain(system, gate.script, "true", "true")
    for waiting in jobs[1:]:
        await system.journal.event(waiting, JobEvent, lambda event: event.reason is Reason.DEPENDENCY)
    gate.open()
    ends = [await system.journal.ended(job) for job in jobs]
    assert [end.status for end in ends] == [JobStatus.SUCCESS] * 3
    for before, job in zip(ends, jobs[1:], strict=False):
        granted = await system.journal.event(job, JobEvent, lambda event: event.status is JobStatus.QUEUED)
        assert granted.at >= before.at
    for job in jobs:
        system.journal.check(job)


async def test_what_depends_on_a_failed_job_is_cancelled_down_the_chain(system: System) -> None:
    jobs = await chain(system, "false", "true", "true")
    assert (await system.journal.ended(jobs[0])).status is JobStatus.FAILED
    for job in jobs[1:]:
        end = await system.journal.ended(job)
        assert (end.status, end.reason, end.attempt) == (JobStatus.CANCELLED, Reason.DEPENDENCY, None)
        system.journal.check(job)
    late = await system.submit(manifest(("build", "true")), depends_on=jobs[2:])
    end = await system.journal.ended(late)
    assert (end.status, end.reason) == (JobStatus.CANCELLED, Reason.DEPENDENCY)


async def test_an_unknown_dependency_is_rejected_with_its_number(system: System, tmp_path: Path) -> None:
    with pytest.raises(SubmissionFailed, match="no job 987654321 of yours") as failed:
        await system.submit(manifest(("build", "true")), depends_on=[987654321])
    assert failed.value.answer.reason == "faults"
    (path,) = files(tmp_path, "true")
    status, out, errors = await leveret(system, "submit", path, "--after", "987654321")
    assert (status, out) == (exits.FAILED, "")
    assert "rejected: there is no job 987654321 of yours" in errors


def files(folder: Path, *scripts: str) -> list[str]:
    paths = [folder / f"{number}.yml" for number in range(len(scripts))]
    for path, script in zip(paths, scripts, strict=True):
        path.write_text(manifest(("build", script)))
    return [str(path) for path in paths]


async def test_a_group_is_mailed_once_and_posted_once_though_the_notifier_is_killed_between(
    system: System, http: HttpSink, smtp: MailSink, tmp_path: Path
) -> None:
    name, to = f"release/{uuid4()}", f"{uuid4()}@example.org"
    path, gate = f"/{uuid4()}", system.gate()
    http.statuses += [503, 503]
    status, out, errors = await leveret(
        system, "submit", *files(tmp_path, gate.script, "true", "exit 3"), "--group", name,
        "--email", to, "--webhook", http.url(path), "--when", "failure",
    )  # fmt: skip
    assert status == exits.OK, errors
    jobs = [int(job) for job in out.splitlines()]
    gate.open()
    event = await group_end(system, name)
    assert event.group.state == "failed"
    ends = {member.job: member.status for member in event.group.jobs}
    assert ends == dict(zip(jobs, ("success", "success", "failed"), strict=True))

    delivered = """
        select id from notify.delivery
        where ended_group is not null and state = 'delivered' and position($1 in convert_from(trigger, 'utf8')) > 0
    """
    await system.until_rows(delivered, to)
    await http.next()
    await system.running["notifier"].kill()
    await system.start("notifier", smtp_port=smtp.port)
    (row,) = await system.until_rows(delivered, path)
    posts = [post for post in http.posts if post.path == path]
    assert {post.delivery for post in posts} == {str(row["id"])}
    assert len(posts) == 3
    assert [job["id"] for job in posts[-1].json["jobs"]] == jobs
    letters = [mail for mail in smtp.mails if mail.recipients == [to]]
    assert [letter.message["Subject"] for letter in letters] == [f"[~tester/{name}] group failed"]


async def test_a_group_is_closed_by_hand_and_its_name_is_good_once(system: System, tmp_path: Path) -> None:
    name = str(uuid4())
    first, second = files(tmp_path, "true", "true")
    jobs = [await system.submit(manifest(("build", "true")), group=name)]
    status, out, _ = await leveret(system, "submit", first, "--group", name)
    assert status == exits.OK
    jobs.append(int(out))
    for job in jobs:
        await system.journal.ended(job)
    status, out, _ = await leveret(system, "group", name, "--size", "2")
    assert status == exits.OK
    assert re.match(rf"group {name} of 2 jobs  success\n  job +{jobs[0]}  success\n", out), out
    assert [member.job for member in (await group_end(system, name)).group.jobs] == jobs
    status, out, errors = await leveret(system, "group", name, "--size", "3")
    assert (status, out) == (exits.FAILED, "")
    assert "choose another one" in errors
    status, _, errors = await leveret(system, "submit", first, second, "--group", name)
    assert status == exits.FAILED
    assert f"taken by the group of job {jobs[0]}" in errors


async def test_a_file_rejected_leaves_the_group_open_and_says_so(system: System, tmp_path: Path) -> None:
    name = str(uuid4())
    good, bad = files(tmp_path, "true", "true")
    Path(bad).write_text("image: test/process\ntasks:\n  - Bad Name: x\n")
    status, out, errors = await leveret(system, "submit", good, bad, "--group", name)
    assert status == exits.FAILED
    assert f"{bad}:3:" in errors
    assert f"stays open with what was submitted before (jobs {int(out)})" in errors
