"""Groups: how many jobs one may have, when it has ended and how, and what may not be said of it. Pure.

A group is open until its owner says how many jobs it has. Then it is closed, and it ends once that many of its jobs
have: `success` where every one succeeded, else `failed`. Jobs join in the order they come to the dispatcher, and never
leave; so a group that has ended stays as it is.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from leveret_proto.manifest import Trigger
from leveret_proto.manifest.addresses import addresses
from leveret_proto.messages import CloseGroup, CommandFailed, GroupMember, GroupState, GroupView, JobStatus

#: Jobs that an open group takes: the largest size that `CloseGroup` knows.
MOST = 512


@dataclass(frozen=True, slots=True)
class Group:
    """A group with the jobs that have joined it so far, by number. `closing` is None while it is open."""

    owner: str
    name: str
    closing: CloseGroup | None
    members: tuple[GroupMember, ...]

    @property
    def size(self) -> int | None:
        return None if self.closing is None else self.closing.size

    @property
    def state(self) -> GroupState:
        return state(self.size, [member.status for member in self.members])

    @property
    def ended(self) -> bool:
        return self.state in ("success", "failed")


def state(size: int | None, statuses: Iterable[JobStatus]) -> GroupState:
    """Say how a group stands whose jobs stand so; `size` None: it is open."""
    if size is None:
        return "open"
    ends = [status for status in statuses if status.ended]
    if len(ends) < size:
        return "closed"
    return "success" if all(status is JobStatus.SUCCESS for status in ends) else "failed"


def room(size: int | None, members: int) -> int:
    """Give how many more jobs may join a group of so many `members`."""
    return max((MOST if size is None else size) - members, 0)


def objection(group: Group, command: CloseGroup) -> CommandFailed | None:
    """Say why `group` can't be closed like that; None where it can, or has been already."""
    if group.closing == command:
        return None
    if group.closing is not None:
        return CommandFailed(
            code="conflict",
            message=f"group {command.group} was closed in other words, with {group.size} jobs; "
            "a group's name is good once: choose another one",
        )
    if len(group.members) > command.size:
        return CommandFailed(
            code="conflict",
            message=f"group {command.group} has {len(group.members)} jobs already; its size can't be {command.size}",
        )
    fault = next((fault for trigger in command.triggers if (fault := _fault(trigger))), None)
    return CommandFailed(code="bad-request", message=fault) if fault else None


def _fault(trigger: Trigger) -> str | None:
    """Say why `trigger` could never be served. A manifest's triggers are read by its own rules, which say the same."""
    if trigger.action == "webhook":
        return None if trigger.url else "a webhook needs 'url'"
    if not (trigger.to or trigger.cc):
        return "a mail needs 'to' or 'cc'"
    try:
        for text in filter(None, (trigger.to, trigger.cc)):
            addresses(text)
    except ValueError as error:
        return f"no mail can be sent: {error}"
    return None


def view(group: Group) -> GroupView:
    """Give `group` as its owner is shown it."""
    view = GroupView(owner=group.owner, group=group.name, state=group.state, jobs=group.members)
    if group.closing is None:
        return view
    said = group.closing
    return view.model_copy(update={"size": said.size, "visibility": said.visibility, "note": said.note})
