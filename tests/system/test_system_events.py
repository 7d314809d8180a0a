"""`leveret events` of the past: since a time or a job, with a cursor across runs, and on to what happens."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from leveret_client import exits
from leveret_proto.messages import JobEvent, TaskEvent
from tests.support.system import System, manifest
from tests.system.test_system_cli import leveret, started

pytestmark = pytest.mark.asyncio(loop_scope="module")

BUILD = manifest(("a", "true"))


async def built(system: System) -> int:
    """A job that has ended, its log sealed."""
    job = await system.submit(BUILD)
    await system.journal.logs(await system.journal.ended(job))
    return job


async def events(system: System, *arguments: str | Path) -> list[dict[str, Any]]:
    status, out, errors = await leveret(system, "events", "--json", *arguments)
    assert (status, errors) == (exits.OK, "")
    return [json.loads(line) for line in out.splitlines()]


def numbers(told: list[dict[str, Any]], job: int, source: str = "dispatcher") -> list[int]:
    return [one["seq"] for one in told if one.get("source") == source and one["facts"]["job"] == job]


async def test_everything_since_a_job_was_submitted(system: System) -> None:
    first, second, third = [await built(system) for _ in range(3)]
    told = await events(system, "--from-job", str(second))
    assert {one["facts"]["job"] for one in told if "facts" in one} == {second, third}
    for job in (second, third):
        assert numbers(told, job) == list(range(1, 1 + len(numbers(told, job))))
        mine = [one for one in told if one["facts"]["job"] == job and one["source"] == "dispatcher"]
        assert (mine[0]["status"], mine[-1]["status"]) == ("pending", "success")
        assert {one["type"] for one in mine} == {JobEvent.TYPE, TaskEvent.TYPE}
    assert {first, second, third} <= {one["facts"]["job"] for one in await events(system, "--since", "1h")}
    assert await events(system, "--since", "0s") == []
    only = await events(system, "--since", "1h", "--job", str(first))
    assert {one["facts"]["job"] for one in only} == {first}
    workers = await events(system, "--since", "1h", "--workers")
    assert next(one["state"] for one in workers if one["type"] == "worker.event.v1") == "joined"


async def test_a_cursor_goes_on_where_the_last_run_stopped(system: System, tmp_path: Path) -> None:
    cursor = tmp_path / "cursor"
    assert await events(system, "--cursor", cursor) == []  # a new one begins now
    first = await built(system)
    told = await events(system, "--cursor", cursor)
    assert {one["facts"]["job"] for one in told} == {first}
    second = await built(system)
    again = await events(system, "--cursor", cursor, "--since", "1h")  # the cursor is there: it says where to begin
    assert {one["facts"]["job"] for one in again} == {second}
    assert await events(system, "--cursor", cursor) == []


async def test_following_begins_with_the_past_and_goes_on(system: System) -> None:
    first = await built(system)
    follower = await started(system, "events", "--json", "--from-job", str(first), "--follow")
    assert follower.stdout is not None
    told: list[dict[str, Any]] = []

    async def until_sealed(job: int) -> None:
        """Up to the last of the job's events: its end, and two sealed logs."""
        assert follower.stdout is not None
        while True:
            mine = [one["status"] for one in told if one["facts"]["job"] == job and "status" in one]
            if mine.count("sealed") == 2 and "success" in mine:
                return
            told.append(json.loads(await follower.stdout.readline()))

    async with asyncio.timeout(60):
        await until_sealed(first)
        second = await system.submit(BUILD)
        await until_sealed(second)
        follower.terminate()
        await follower.communicate()
    assert numbers(told, first)[0] == numbers(told, second)[0] == 1
    for job in (first, second):
        assert numbers(told, job) == list(range(1, 1 + len(numbers(told, job))))


async def test_what_is_wrong_is_said(system: System, tmp_path: Path) -> None:
    (tmp_path / "no-cursor").write_text("{}")
    for arguments, status, said in (
        (("--since", "yesterday"), exits.USAGE, "give 90s, 15m, 2h"),
        (("--since", "1h", "--from-job", "1"), exits.USAGE, "give one of them"),
        (("--from-job", "999999"), exits.NOT_FOUND, "999999"),
        (("--cursor", str(tmp_path / "no-cursor")), exits.USAGE, "remove it to begin anew"),
        (("--cursor", str(tmp_path / "no" / "folder")), exits.USAGE, "the cursor can't be kept there"),
    ):
        got, out, errors = await leveret(system, "events", *arguments)
        assert (got, out) == (status, "")
        assert said in errors
