"""Which triggers an ended job or group fires, and the id of each delivery. Pure."""

from datetime import UTC
from uuid import UUID, uuid5

from leveret_notifier.ended import Ended, status
from leveret_proto.manifest.model import Condition
from leveret_proto.messages import EndedGroup, GroupState, JobFacts, JobStatus
from leveret_proto.words import escape, join

#: The name space of delivery ids (RFC 9562 section 5.5). Changing it would change every id.
_DELIVERIES = UUID("5f0a4ac3-6c6f-4f5b-9d4b-8f3f3d1c2a17")

#: builds.sr.ht's worker counts a timeout and a cancel as failures, too.
_FAILURES = frozenset({JobStatus.FAILED, JobStatus.TIMEOUT, JobStatus.CANCELLED})


def fired(ended: Ended) -> list[int]:
    """Give the indexes of the triggers that are served."""
    return [index for index, trigger in enumerate(ended.triggers) if fires(trigger.condition, status(ended))]


def fires(condition: Condition, status: JobStatus | GroupState) -> bool:
    """Say whether a trigger with `condition` is served for what ended as `status`; a group knows two ends."""
    match condition:
        case "always":
            return True
        case "success":
            return status == JobStatus.SUCCESS
        case "failure":
            return status in _FAILURES


def delivery_id(facts: JobFacts, index: int) -> UUID:
    """Give the id of the delivery for the job's trigger number `index`, counted from 0 in the manifest's list.

    It depends on nothing else, so it is the same however often the end of the job is told. The job's unguessable link
    is in it, because job numbers of two installations are the same.
    """
    return uuid5(_DELIVERIES, f"{facts.job}/{facts.link}/{index}")


def group_id(ended: EndedGroup) -> UUID:
    """Give the id of an ended group: the same however often its end is told.

    The time of the end is in it, because names of two installations' groups may be the same.
    """
    group = ended.group
    name = join("group", escape(group.owner), escape(group.group))
    return uuid5(_DELIVERIES, f"{name}/{ended.ended_at.astimezone(UTC).isoformat()}")


def group_delivery_id(group: UUID, index: int) -> UUID:
    """Give the id of the delivery for the trigger number `index`, counted from 0, of the group with the id `group`."""
    return uuid5(group, str(index))
