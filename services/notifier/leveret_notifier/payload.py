"""The webhook's JSON body: of a job in the shape builds.sr.ht documents for its `webhook` trigger. Pure."""

import json
from typing import Any

from leveret_notifier.ended import Ended
from leveret_proto.messages import EndedGroup, EndedJob


def payload(ended: Ended) -> bytes:
    """Give the body; the same bytes for every try."""
    body = _of_job(ended) if isinstance(ended, EndedJob) else _of_group(ended)
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _of_job(ended: EndedJob) -> dict[str, Any]:
    return {
        "id": ended.facts.job,
        "status": ended.status.value,
        "setup_log": ended.setup_log_url,
        "tasks": [{"name": task.name, "status": task.state.value, "log": task.log_url} for task in ended.tasks],
        "note": ended.facts.note,
        "runner": ended.worker,
        "owner": _owner(ended.facts.owner),
    }


def _of_group(ended: EndedGroup) -> dict[str, Any]:
    group = ended.group
    return {
        "group": group.group,
        "status": group.state,
        "jobs": [{"id": member.job, "status": member.status.value} for member in group.jobs],
        "note": group.note,
        "owner": _owner(group.owner),
    }


def _owner(owner: str) -> dict[str, str]:
    name = owner.removeprefix("~")
    return {"canonical_name": f"~{name}", "name": name}
