"""What two records by outsiders prove of a run: the file that builds wrote in, and the events that an observer heard.

Pure, and without a line of Leveret's own code: the events are read as their documentation says (docs/events.md).
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

ENDS = {"success", "failed", "timeout", "cancelled"}


@dataclass(frozen=True)
class Run:
    """One execution of a build. `nonce` was drawn by it; `grant` and `attempt` are what its worker ran it as."""

    job: int
    attempt: int
    grant: str
    nonce: str


@dataclass(frozen=True)
class End:
    """How a job ended."""

    status: str
    reason: str
    attempt: int


def read_runs(text: str) -> list[Run]:
    """Read lines of `job attempt grant nonce`."""
    fields = [line.split() for line in text.splitlines()]
    return [Run(int(job), int(attempt), grant, nonce) for job, attempt, grant, nonce in fields]


def judge(events: Iterable[dict[str, Any]], runs: Iterable[Run]) -> tuple[dict[int, End], list[str]]:
    """Give each job's end, and everything that is wrong."""
    faults: list[str] = []
    told = _by_source(events, faults)
    ends: dict[int, End] = {}
    for (job, source), numbered in told.items():
        if sorted(numbered) != list(range(1, len(numbered) + 1)):
            faults.append(f"job {job}: gap in the numbers of {source}: {sorted(numbered)}")
        if source == "dispatcher":
            end = _end(job, numbered, faults)
            if end is not None:
                ends[job] = end
    _judge_runs(list(runs), ends, faults)
    return ends, faults


def _by_source(events: Iterable[dict[str, Any]], faults: list[str]) -> dict[tuple[int, str], dict[int, dict[str, Any]]]:
    """Numbered events by job and source, then number. The same number twice must be the same event."""
    told: dict[tuple[int, str], dict[int, dict[str, Any]]] = defaultdict(dict)
    for event in events:
        if "seq" not in event or "facts" not in event:
            continue
        job, source, seq = event["facts"]["job"], event["source"], event["seq"]
        if told[job, source].setdefault(seq, event) != event:
            faults.append(f"job {job}: two events of {source} have number {seq}")
    return told


def _end(job: int, numbered: dict[int, dict[str, Any]], faults: list[str]) -> End | None:
    states = [(seq, event) for seq, event in sorted(numbered.items()) if event["type"].startswith("job.")]
    ends = [(seq, event) for seq, event in states if event["status"] in ENDS]
    if len(ends) != 1:
        faults.append(f"job {job}: {len(ends)} ends: {[event['status'] for _, event in states]}")
        return None
    seq, event = ends[0]
    if seq != max(numbered):
        faults.append(f"job {job}: something was told after its end")
    return End(event["status"], event["reason"], event.get("attempt", 0))


def _judge_runs(runs: list[Run], ends: dict[int, End], faults: list[str]) -> None:
    for what, keys in (
        ("attempt", [(run.job, run.attempt) for run in runs]),
        ("grant", [run.grant for run in runs]),
        ("nonce", [run.nonce for run in runs]),
    ):
        faults += [f"{what} {key} ran {keys.count(key)} times" for key in sorted(set(keys)) if keys.count(key) > 1]
    ran = {(run.job, run.attempt) for run in runs}
    faults += [f"a build of job {run.job} ran, of which nothing was told" for run in runs if run.job not in ends]
    for job, end in ends.items():
        late = [attempt for of, attempt in ran if of == job and attempt > end.attempt]
        if late:
            faults.append(f"job {job}: attempts {late} ran, past its last one, {end.attempt}")
        if end.status == "success" and (job, end.attempt) not in ran:
            faults.append(f"job {job}: attempt {end.attempt} succeeded and never ran")
