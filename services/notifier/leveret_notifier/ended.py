"""What has ended, a job or a group, and what the log and the triggers ask of either. Pure."""

from leveret_proto.messages import EndedGroup, EndedJob, GroupState, JobStatus

Ended = EndedJob | EndedGroup


def status(ended: Ended) -> JobStatus | GroupState:
    """Give how it ended; a group ends as `success` or `failed`."""
    return ended.status if isinstance(ended, EndedJob) else ended.group.state


def named(ended: Ended) -> dict[str, int | str]:
    """Name it for the log."""
    if isinstance(ended, EndedJob):
        return {"job": ended.facts.job}
    return {"owner": ended.group.owner, "group": ended.group.group}
