"""Links to logs and artifacts: deterministic, so that an event can carry them before anything is stored.

A link holds the job's unguessable word; whoever may read the job's events has it.
"""

from urllib.parse import quote


def log_path(job: int, link: str, attempt: int, task: str) -> str:
    """Give the path of a task's log on logsink's HTTP server. The setup's log is the one named SETUP_LOG."""
    return f"/jobs/{job}/{link}/{attempt}/logs/{quote(task, safe='')}"


def artifact_path(job: int, link: str, attempt: int, index: int, name: str) -> str:
    """Give the path of an artifact; `index` is its place in the manifest's list."""
    return f"/jobs/{job}/{link}/{attempt}/artifacts/{index}/{quote(name, safe='')}"
