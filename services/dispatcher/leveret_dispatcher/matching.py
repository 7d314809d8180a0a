"""The backlog against free slots: which job goes to which session. Pure.

For a free slot, of the owners below their limit that have a job waiting which the session could run, the one whose turn
it is (fair_share.py); of its jobs that the session could run, the highest priority, then the lowest id.

Jobs with one requirement stand in one `Line`, in one `Queue` an owner. A line ranks its queues by their owners' turns,
a queue its jobs; and a line knows the sessions that serve it, and those of them with a free slot. So a match looks at
the lines that its session serves (as many as there are kinds of jobs), at the head of each, and at nothing else:
neither at the backlog nor at the owners nor at the other sessions. A ranking costs the logarithm of what it ranks. A
grant or an end moves its owner in each of its served lines, however many jobs it has there.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from leveret_dispatcher.fair_share import Owner, Owners
from leveret_dispatcher.line import Line, LineKey, Queue, Session, line_key
from leveret_dispatcher.reasons import Reasons, Untold
from leveret_proto.capability import Requirement, missing, serves, size
from leveret_proto.messages import Place, Reason

__all__ = ["Match", "Matching", "Session"]

#: Lines without jobs that are kept, so that the next job of that kind finds its sessions at once.
KEPT_LINES = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """A job for a slot token of a session. It counts as running until its owner is released."""

    job: int
    owner: str
    requirement: Requirement
    priority: int
    told: Reason
    session: Session
    token: str


class Matching:
    """The index in memory. Built anew by every leader from the database and the beats."""

    def __init__(self, limit_of: Callable[[str], int | None] = lambda owner: None) -> None:
        """`limit_of` gives the most jobs an owner may have granted or running; None: no limit."""
        self._owners = Owners(limit_of)
        self._lines: dict[LineKey, Line] = {}
        self._empty: OrderedDict[LineKey, Line] = OrderedDict()
        self._queue_of: dict[int, Queue] = {}
        self._sessions: dict[str, Session] = {}
        #: Lines where a job and a free slot may meet.
        self._stirred: dict[LineKey, Line] = {}
        self._reasons = Reasons(self.explain)

    def __len__(self) -> int:
        return len(self._queue_of)

    # Jobs

    def add(self, job: int, owner: str, requirement: Requirement, priority: int, told: Reason) -> None:
        """A job waits for a slot; `told` is the reason last told of it. Adding it again changes nothing."""
        if job in self._queue_of:
            return
        key = line_key(requirement)
        line = self._lines.get(key) or self._open_line(key, requirement)
        queue = line.queues.get(owner) or self._open_queue(line, owner)
        queue.add(job, priority, told)
        self._queue_of[job] = queue
        self._reasons.note(queue)

    def remove(self, job: int) -> None:
        """The job waits no more."""
        queue = self._queue_of.pop(job, None)
        if queue is not None:
            queue.remove(job)
            self._close_if_empty(queue)

    def prioritize(self, job: int, priority: int) -> None:
        """The job's priority has changed. One that is not here is left alone."""
        queue = self._queue_of.get(job)
        if queue is not None:
            queue.jobs.put(job, -priority)

    def place(self, job: int) -> Place | None:
        """Say where a waiting job stands; None where it does not wait for a slot. Looks at the owner's jobs."""
        queue = self._queue_of.get(job)
        if queue is None:
            return None
        rank, owner = (*queue.jobs.rank(job), job), queue.owner
        return Place(
            place=1 + sum((*queue.jobs.rank(other), other) < rank for other in queue.jobs),
            waiting=len(queue.jobs),
            owners=len(queue.line.queues),
            running=owner.running,
            limit=owner.limit,
        )

    # Owners

    def hold(self, owner: str) -> None:
        """A job of the owner was granted by a leader before and is under way."""
        self._count(self._owners.get(owner), +1)

    def release(self, owner: str) -> None:
        """A job of the owner is under way no more, or a match of it was not made use of.

        Raises:
            ValueError: the owner has none under way.
        """
        known = self._owners.get(owner)
        if not known.running:
            raise ValueError(f"owner {owner} has no job under way")
        self._count(known, -1)
        for queue in known.queues.values():
            self._await_turn(queue)
        self._owners.rest(known)

    # Sessions

    def seat(self, session: Session) -> None:
        """A session joined, or what it offers has changed."""
        session.withdrawn.clear()
        self._unlink(session, list(session.lines))
        self._sessions[session.id] = session
        for line in self._lines.values():
            self._link(session, line)
        self.freed(session)

    def unseat(self, session: Session) -> None:
        """The session is over."""
        self._sessions.pop(session.id, None)
        self._unlink(session, list(session.lines))

    def withdraw(self, session: Session, requirement: Requirement) -> None:
        """The session no longer takes jobs of this capability key, until it is seated again."""
        session.withdrawn.add(requirement.key)
        self._unlink(session, [key for key in session.lines if key[0] == requirement.key])

    def freed(self, session: Session) -> None:
        """The session's free tokens have changed."""
        for key, line in session.lines.items():
            if session.free:
                line.idle[session.id] = session
                if line.queues:
                    self._stirred[key] = line
            else:
                line.idle.pop(session.id, None)

    # Matches and reasons

    def match(self, most: int) -> list[Match]:
        """Give up to `most` matches. The jobs leave their lines, the tokens are spent, and each counts as running."""
        found: list[Match] = []
        while self._stirred and len(found) < most:
            key, line = next(iter(self._stirred.items()))
            if not line.idle or line.turn() is None:
                del self._stirred[key]
                continue
            found.append(self._take(next(iter(line.idle.values()))))
        return found

    def untold(self, most: int, now: float) -> list[Untold]:
        """Give up to `most` waiting jobs whose reason is to be told, with reason and detail; `now` as in reasons.py."""
        return self._reasons.untold(most, now)

    def explain(self, requirement: Requirement) -> str:
        """Say what no session has that `requirement` asks for, and which session comes nearest.

        One that has it all and is given no jobs comes nearer than any.
        """
        best: tuple[int, str, str] | None = None
        halted: Session | None = None
        for session in self._sessions.values():
            lack = missing(requirement, session.offer)
            if lack is None:
                if not session.welcomes_jobs and (halted is None or session.worker < halted.worker):
                    halted = session
                continue
            if not session.welcomes_jobs:
                continue
            rank = lack.lack.nearness
            if best is None or (rank, session.worker) > best[:2]:
                best = (rank, session.worker, f"{lack.lack} {lack.value}")
        if halted is not None:
            why = halted.halt.why if halted.halt is not None else "draining"
            return f"no worker takes {_wanted(requirement)}: {halted.worker} could, but is {why}"
        if best is None:
            return f"no worker is there that takes jobs (wanted: {_wanted(requirement)})"
        return f"no worker offers {_wanted(requirement)}; nearest is {best[1]}, which lacks {best[2]}"

    def _take(self, session: Session) -> Match:
        turns = [queue for line in session.lines.values() if (queue := line.turn()) is not None]
        owner = min(turns, key=lambda queue: queue.owner.rank).owner
        heads = [
            (queue.jobs.rank(job), job, queue)
            for key, queue in owner.queues.items()
            if key in session.lines and (job := queue.jobs.first()) is not None
        ]
        _, job, queue = min(heads, key=lambda head: head[:2])
        priority, told = queue.priority(job), queue.remove(job)
        del self._queue_of[job]
        limited = owner.limited
        self._owners.grant(owner)
        if owner.limited is not limited:
            self._reasons.changed(owner)
        self._close_if_empty(queue)
        match = Match(job, owner.name, queue.line.requirement, priority, told, session, session.spend())
        for line in session.lines.values():
            # to the end of the line of idle ones, so that work spreads
            line.idle.pop(session.id, None)
            if session.free:
                line.idle[session.id] = session
        return match

    def _count(self, owner: Owner, change: int) -> None:
        limited = owner.limited
        owner.running += change
        if owner.limited is not limited:
            self._reasons.changed(owner)

    def _await_turn(self, queue: Queue) -> None:
        """The queue's owner may have its turn in a line that is served."""
        if not queue.owner.limited:
            queue.line.turns.put(queue.owner.name, *queue.owner.rank)
            self._stirred[queue.line.key] = queue.line

    # Lines and queues come and go

    def _open_line(self, key: LineKey, requirement: Requirement) -> Line:
        line = self._lines[key] = Line(key, requirement)
        for session in self._sessions.values():
            self._link(session, line)
        return line

    def _open_queue(self, line: Line, name: str) -> Queue:
        self._empty.pop(line.key, None)
        owner = self._owners.get(name)
        owner.waiting += 1
        queue = line.queues[name] = Queue(owner, line)
        if line.servers:
            owner.queues[line.key] = queue
            self._await_turn(queue)
        return queue

    def _close_if_empty(self, queue: Queue) -> None:
        if queue.jobs:
            return
        line, owner = queue.line, queue.owner
        del line.queues[owner.name]
        line.turns.drop(owner.name)
        owner.queues.pop(line.key, None)
        owner.waiting -= 1
        self._owners.rest(owner)
        self._reasons.forget(queue)
        if not line.queues:
            self._empty[line.key] = line
            if len(self._empty) > KEPT_LINES:
                self._forget(self._empty.popitem(last=False)[1])

    def _forget(self, line: Line) -> None:
        del self._lines[line.key]
        self._stirred.pop(line.key, None)
        for session in line.servers.values():
            del session.lines[line.key]

    def _link(self, session: Session, line: Line) -> None:
        if not session.welcomes_jobs or line.key[0] in session.withdrawn or not serves(session.offer, line.requirement):
            return
        first = not line.servers
        session.lines[line.key] = line
        line.servers[session.id] = session
        if session.free:
            line.idle[session.id] = session
        if first:
            for queue in line.queues.values():
                queue.owner.queues[line.key] = queue
                self._await_turn(queue)
                self._reasons.note(queue)

    def _unlink(self, session: Session, keys: Iterable[LineKey]) -> None:
        for key in keys:
            line = session.lines.pop(key)
            del line.servers[session.id]
            line.idle.pop(session.id, None)
            if not line.servers:
                line.turns.clear()
                for queue in line.queues.values():
                    del queue.owner.queues[key]
                    self._reasons.note(queue)


def _wanted(requirement: Requirement) -> str:
    extras = ["kvm"] if requirement.kvm else []
    if requirement.memory_mib:
        extras.append(f"{size(requirement.memory_mib)} of memory")
    if requirement.cpus:
        extras.append(f"{requirement.cpus} cpus")
    extras += requirement.tags
    return f"{requirement.image} on {requirement.arch}" + (f" with {', '.join(extras)}" if extras else "")
