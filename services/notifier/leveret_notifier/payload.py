"""The webhook's JSON body: the shape builds.sr.ht documents for its `webhook` trigger. Pure."""

import json

from leveret_proto.messages import EndedJob


def payload(ended: EndedJob) -> bytes:
    """Give the body; the same bytes for every try."""
    owner = ended.facts.owner.removeprefix("~")
    body = {
        "id": ended.facts.job,
        "status": ended.status.value,
        "setup_log": ended.setup_log_url,
        "tasks": [{"name": task.name, "status": task.state.value, "log": task.log_url} for task in ended.tasks],
        "note": ended.facts.note,
        "runner": ended.worker,
        "owner": {"canonical_name": f"~{owner}", "name": owner},
    }
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
