"""Who is there to run jobs, and why a job waits: workers, explain."""

from collections.abc import Iterable, Sequence

from leveret_dispatcher import events, session_store, store
from leveret_dispatcher.commands.asked import Asked, Handlers, not_found
from leveret_dispatcher.commands.jobs import may_see
from leveret_dispatcher.desk import Desk
from leveret_dispatcher.matching import Session
from leveret_proto.capability import Capabilities, Requirement, missing
from leveret_proto.messages import (
    ExplainJob,
    ExplainReply,
    JobMatch,
    JobStatus,
    ListWorkers,
    Message,
    WorkersReply,
    WorkerView,
)

#: Workers told of that could run a job, and of those that could not.
MOST_MATCHES = 20
#: Bytes of views in one answer; what a worker offers may be long.
MOST_BYTES = 1024 * 1024


async def explain(desk: Desk, asked: Asked[ExplainJob]) -> Message:
    """Say why a job waits: its place in line, what it depends on, and how each worker stands beside it."""
    job = asked.command.job
    async with desk.database.connection() as on:
        row = await store.find_job(on, job)
    if row is None or not may_see(row, asked.owner):
        return not_found(job)
    waits = row.course.status is JobStatus.PENDING
    return ExplainReply(
        job=events.view(row, desk.links),
        place=desk.matching.place(job) if waits else None,
        depends_on=desk.dependencies.needs(job) if waits else (),
        workers=matches(row.requirement, desk.sessions.values()),
    )


def matches(requirement: Requirement, sessions: Iterable[Session]) -> tuple[JobMatch, ...]:
    """Rank workers beside a job: those that could run it, the idle ones first; then the others, the nearest first.

    At most MOST_MATCHES of each.
    """
    able: list[tuple[tuple[bool, bool, str], JobMatch]] = []
    unable: list[tuple[tuple[int, bool, str], JobMatch]] = []
    for session in sessions:
        lack = missing(requirement, session.offer)
        match = JobMatch(
            worker=session.worker, lack=lack and lack.lack, lacks=lack and lack.value,
            slots=session.slots, free=len(session.free), draining=not session.welcomes_jobs, halt=session.halt,
        )  # fmt: skip
        if lack is None:
            able.append(((match.draining, not session.free, session.worker), match))
        else:
            unable.append(((-lack.lack.nearness, match.draining, session.worker), match))
    ranked = sorted(able, key=lambda pair: pair[0])[:MOST_MATCHES]
    return tuple(match for _, match in [*ranked, *sorted(unable, key=lambda pair: pair[0])[:MOST_MATCHES]])


async def list_workers(desk: Desk, asked: Asked[ListWorkers]) -> Message:
    """List by name the live workers, and those that are halted while they are away."""
    after, limit = asked.command.after, asked.command.limit
    halted = {name for name, record in desk.records.items() if record.halt is not None}
    following = sorted(name for name in desk.sessions.keys() | halted if after is None or name > after)
    found: list[WorkerView] = []
    taken = 0
    for view in await _views(desk, following[:limit]):
        taken += len(view.model_dump_json())
        if found and taken > MOST_BYTES:
            return WorkersReply(workers=tuple(found), more=True)
        found.append(view)
    return WorkersReply(workers=tuple(found), more=len(following) > limit)


async def _views(desk: Desk, workers: Sequence[str]) -> list[WorkerView]:
    """View those of `workers` that are there, or halted."""
    live = {name: session for name in workers if (session := desk.sessions.get(name)) is not None}
    async with desk.database.connection() as on:
        since = await session_store.since(on, [session.id for session in live.values()])
    made: list[WorkerView] = []
    for name in workers:
        session, halt, running = live.get(name), desk.record_of(name).halt, len(desk.leases.of_worker(name))
        if session is not None and session.id in since:
            made.append(WorkerView(
                worker=name, capabilities=session.offer, slots=session.slots, free=len(session.free), running=running,
                draining=not session.welcomes_jobs, since=since[session.id], halt=halt,
            ))  # fmt: skip
        elif halt is not None:
            made.append(WorkerView(
                worker=name, capabilities=Capabilities(), slots=0, free=0, running=running,
                draining=True, since=halt.since, halt=halt, live=False,
            ))  # fmt: skip
    return made


HANDLERS: Handlers = {ExplainJob: explain, ListWorkers: list_workers}
