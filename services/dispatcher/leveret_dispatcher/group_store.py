"""The dispatcher's groups: each function is one statement (or two) inside the caller's transaction. No decisions."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from leveret_dispatcher.groups import Group
from leveret_proto.messages import CloseGroup, GroupMember, JobStatus
from leveret_proto.words import escape, unescape

if TYPE_CHECKING:
    from leveret_runtime.db import Connection

#: Owner and name.
Key = tuple[str, str]


async def find(on: "Connection", owner: str, name: str) -> Group:
    """Read a group and its jobs; one that nobody has spoken of is open and empty."""
    closing = await on.fetchval(
        "select closing from job_group where owner = $1 and name = $2", escape(owner), escape(name)
    )
    members = await _members(on, [(owner, name)])
    said = None if closing is None else CloseGroup.model_validate_json(closing)
    return Group(owner, name, said, members[owner, name])


async def closed(on: "Connection", keys: Collection[Key]) -> list[Group]:
    """Read those of these groups that are closed and whose end has not been told, with their jobs."""
    rows = await on.fetch(
        """
        select owner, name, closing from job_group natural join unnest($1::text[], $2::text[]) u (owner, name)
        where ended_at is null
        """,
        *_words(keys),
    )
    found = {(unescape(row["owner"]), unescape(row["name"])): row["closing"] for row in rows}
    members = await _members(on, found)
    return [Group(*key, CloseGroup.model_validate_json(closing), members[key]) for key, closing in found.items()]


async def sizes(on: "Connection", keys: Collection[Key]) -> dict[Key, tuple[int | None, int]]:
    """Give for each group its size (None: open) and how many jobs have joined it."""
    rows = await on.fetch(
        """
        select u.owner, u.name, g.closing,
               (select count(*) from job j where j.owner = u.owner and j.group_name = u.name) as members
        from unnest($1::text[], $2::text[]) u (owner, name) left join job_group g using (owner, name)
        """,
        *_words(keys),
    )
    return {
        (unescape(row["owner"]), unescape(row["name"])): (
            None if row["closing"] is None else CloseGroup.model_validate_json(row["closing"]).size,
            row["members"],
        )
        for row in rows
    }


async def join(on: "Connection", jobs: Sequence[tuple[int, str]]) -> None:
    """Have each (job, name) join that group of its owner."""
    await on.execute(
        """
        update job set group_name = u.name from unnest($1::bigint[], $2::text[]) u (id, name) where job.id = u.id
        """,
        [job for job, _ in jobs], [escape(name) for _, name in jobs],
    )  # fmt: skip


async def close(on: "Connection", owner: str, closing: CloseGroup) -> None:
    """Write that an open group is closed."""
    await on.execute(
        "insert into job_group (owner, name, closing) values ($1, $2, $3)",
        escape(owner), escape(closing.group), closing.model_dump_json(),
    )  # fmt: skip


async def end(on: "Connection", owner: str, name: str, at: datetime) -> None:
    """Write that a group's end is told."""
    await on.execute(
        "update job_group set ended_at = $3 where owner = $1 and name = $2", escape(owner), escape(name), at
    )


async def last_ended(on: "Connection", owner: str, name: str) -> int:
    """Give the job of a group that ended last."""
    job: int = await on.fetchval(
        """
        select id from job where owner = $1 and group_name = $2 and ended_at is not null
        order by ended_at desc, id desc limit 1
        """,
        escape(owner), escape(name),
    )  # fmt: skip
    return job


async def _members(on: "Connection", keys: Collection[Key]) -> dict[Key, tuple[GroupMember, ...]]:
    rows = await on.fetch(
        """
        select job.id, job.owner, group_name, status
        from job join unnest($1::text[], $2::text[]) u (owner, name) on job.owner = u.owner and group_name = u.name
        order by job.id
        """,
        *_words(keys),
    )
    found: dict[Key, list[GroupMember]] = defaultdict(list)
    for row in rows:
        key = unescape(row["owner"]), unescape(row["group_name"])
        found[key].append(GroupMember(job=row["id"], status=JobStatus(row["status"])))
    return {key: tuple(found[key]) for key in keys}


def _words(keys: Iterable[Key]) -> tuple[list[str], list[str]]:
    listed = list(keys)
    return [escape(owner) for owner, _ in listed], [escape(name) for _, name in listed]
