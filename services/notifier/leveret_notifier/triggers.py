"""Which triggers an ended job fires, and the id of each delivery. Pure."""

from uuid import UUID, uuid5

from leveret_proto.manifest.model import Condition
from leveret_proto.messages import JobFacts, JobStatus

#: The name space of delivery ids (RFC 9562 section 5.5). Changing it would change every id.
_DELIVERIES = UUID("5f0a4ac3-6c6f-4f5b-9d4b-8f3f3d1c2a17")

#: builds.sr.ht's worker counts a timeout and a cancel as failures, too.
_FAILURES = frozenset({JobStatus.FAILED, JobStatus.TIMEOUT, JobStatus.CANCELLED})


def fires(condition: Condition, status: JobStatus) -> bool:
    """Say whether a trigger with `condition` is served for a job that ended as `status`."""
    match condition:
        case "always":
            return True
        case "success":
            return status is JobStatus.SUCCESS
        case "failure":
            return status in _FAILURES


def delivery_id(facts: JobFacts, index: int) -> UUID:
    """Give the id of the delivery for the job's trigger number `index`, counted from 0 in the manifest's list.

    It depends on nothing else, so it is the same however often the end of the job is told. The job's unguessable link
    is in it, because job numbers of two installations are the same.
    """
    return uuid5(_DELIVERIES, f"{facts.job}/{facts.link}/{index}")
