"""Groups within the leader's transaction: jobs join, a group is closed, and its end is told once."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import structlog

from leveret_dispatcher import group_store, groups
from leveret_dispatcher.groups import Group
from leveret_dispatcher.store import JobRow
from leveret_proto import keys
from leveret_proto.base import JobFacts
from leveret_proto.messages import CloseGroup, CommandFailed, EndedGroup, GroupEvent, GroupReply
from leveret_proto.topology import NOTIFY, RECORD
from leveret_proto.words import escape

if TYPE_CHECKING:
    from leveret_dispatcher.ledger import Transaction

log = structlog.get_logger(__name__)


async def join(tx: "Transaction", new: Iterable[JobFacts]) -> None:
    """Have new jobs join the groups they name. One that finds no place left runs all the same, and is not counted."""
    by_group: dict[group_store.Key, list[int]] = {}
    for facts in new:
        if facts.group is not None:
            by_group.setdefault((facts.owner, facts.group), []).append(facts.job)
    if not by_group:
        return
    joining: list[tuple[int, str]] = []
    for (owner, name), (size, members) in (await group_store.sizes(tx.on, by_group)).items():
        jobs = by_group[owner, name]
        places = groups.room(size, members)
        joining += [(job, name) for job in jobs[:places]]
        if jobs[places:]:
            log.info("no place left in the group", owner=owner, group=name, jobs=jobs[places:])
    await group_store.join(tx.on, joining)


async def close(tx: "Transaction", owner: str, command: CloseGroup) -> GroupReply | CommandFailed:
    """Close a group, and end it where its jobs have ended already. The same words again change nothing."""
    group = await group_store.find(tx.on, owner, command.group)
    refused = groups.objection(group, command)
    if refused is not None:
        return refused
    if group.closing is None:
        await group_store.close(tx.on, owner, command)
        group = Group(owner, command.group, command, group.members)
        if group.ended:
            await _tell(tx, group, command, await group_store.last_ended(tx.on, owner, command.group))
    return GroupReply(group=groups.view(group))


async def after_ends(tx: "Transaction", ended: Sequence[JobRow]) -> None:
    """End the groups whose last job is among these, whose rows have been written."""
    last = {(row.facts.owner, row.facts.group): row.id for row in ended if row.facts.group is not None}
    for group in await group_store.closed(tx.on, last):
        if group.closing is not None and group.ended:
            await _tell(tx, group, group.closing, last[group.owner, group.name])


async def _tell(tx: "Transaction", group: Group, said: CloseGroup, job: int) -> None:
    """Tell the end of a group that was closed with what was `said`, behind that of `job`, which ended last."""
    await group_store.end(tx.on, group.owner, group.name, tx.at)
    view = groups.view(group)
    key = keys.group_event(said.visibility, group.owner, group.name, group.state)
    tx.tell(RECORD, key, GroupEvent(group=view, at=tx.at), job=job)
    if said.triggers:
        ended = EndedGroup(group=view, triggers=said.triggers, ended_at=tx.at)
        tx.tell(NOTIFY, escape(group.name), ended, job=job)
