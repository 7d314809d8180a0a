"""The backlog against free slots: which job goes to which session, and why the rest wait. Pure.

Jobs with one requirement stand in one `Line`. A line knows the sessions that serve it and those of them with a free
slot, so that neither a new job nor a free slot has to look at the backlog. Which line a session takes its next job from
is the policy's choice: one function, replaceable.
"""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from leveret_proto.capability import Capabilities, Lack, Requirement, missing, serves
from leveret_proto.messages import Reason

#: Lines without jobs that are kept, so that the next job of that kind finds its sessions at once.
KEPT_LINES = 1000


@dataclass(slots=True, eq=False)
class Session:
    """A live session of a worker: its offer and its free slots."""

    worker: str
    id: str
    spool: str
    offer: Capabilities
    slots: int
    draining: bool = False
    #: The last beat taken; 0 where this leader has not heard one yet.
    beat: int = 0
    #: Free slot tokens, in the order they came.
    free: dict[str, None] = field(default_factory=dict)
    #: Tokens granted that a beat on its way may still call free.
    used: set[str] = field(default_factory=set)
    #: The lines it serves.
    lines: "dict[LineKey, Line]" = field(default_factory=dict)
    #: Capability keys that it offers but was found not to take; believed again with its next beat.
    withdrawn: set[str] = field(default_factory=set)

    def take_beat(self, tokens: Iterable[str]) -> None:
        """A beat names every free slot there is."""
        listed = dict.fromkeys(tokens)
        self.used &= listed.keys()  # one-use: what a beat no longer lists, none will list again
        self.free = {token: None for token in listed if token not in self.used}

    def take_claim(self, tokens: Iterable[str]) -> None:
        """A claim names slots that have just become free."""
        self.free |= {token: None for token in tokens if token not in self.used}

    def spend(self) -> str:
        """Take the oldest free token. Raises StopIteration where there is none."""
        token = next(iter(self.free))
        del self.free[token]
        self.used.add(token)
        return token

    def give_back(self, token: str) -> None:
        """A token that was taken, but not used after all, is free again."""
        if token in self.used:
            self.used.discard(token)
            self.free[token] = None


LineKey = tuple[str, tuple[str, ...]]


@dataclass(slots=True, eq=False)
class Line:
    """Waiting jobs of one requirement, lowest id first."""

    requirement: Requirement
    #: Heap of ids; those no longer in `told` have left the line.
    order: list[int] = field(default_factory=list)
    #: Job → the reason for waiting that was last told of it.
    told: dict[int, Reason] = field(default_factory=dict)
    untold: dict[int, None] = field(default_factory=dict)
    reason: Reason = Reason.NO_WORKER
    servers: dict[str, Session] = field(default_factory=dict)
    idle: dict[str, Session] = field(default_factory=dict)

    def head(self) -> int | None:
        """Give the job that is next."""
        while self.order and self.order[0] not in self.told:
            heapq.heappop(self.order)
        return self.order[0] if self.order else None


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """A job for a slot token of a session."""

    job: int
    requirement: Requirement
    told: Reason
    session: Session
    token: str


Policy = Callable[[Iterable[Line]], Line | None]


def oldest_first(lines: Iterable[Line]) -> Line | None:
    """First come, first served: the line whose head has the lowest id."""
    heads = [(head, line) for line in lines if (head := line.head()) is not None]
    return min(heads, key=lambda pair: pair[0])[1] if heads else None


class Matching:
    """The index in memory. Built anew by every leader from the database and the beats."""

    def __init__(self, policy: Policy = oldest_first) -> None:
        self._policy = policy
        self._lines: dict[LineKey, Line] = {}
        self._line_of: dict[int, Line] = {}
        self._sessions: dict[str, Session] = {}
        #: Lines where a job and a free slot may meet.
        self._stirred: dict[LineKey, Line] = {}
        self._unsettled: dict[LineKey, Line] = {}

    def __len__(self) -> int:
        return len(self._line_of)

    def add(self, job: int, requirement: Requirement, told: Reason) -> None:
        """A job waits; `told` is the reason last told of it. Adding it again changes nothing."""
        if job in self._line_of:
            return
        key = _key(requirement)
        line = self._lines.get(key) or self._open(key, requirement)
        line.told[job] = told
        heapq.heappush(line.order, job)
        self._line_of[job] = line
        self._stirred[key] = line
        self._note(key, line, [job])

    def remove(self, job: int) -> None:
        """The job waits no more."""
        line = self._line_of.pop(job, None)
        if line is not None:
            del line.told[job]
            line.untold.pop(job, None)

    def seat(self, session: Session) -> None:
        """A session joined, or what it offers has changed."""
        session.withdrawn.clear()
        self._unlink(session)
        self._sessions[session.id] = session
        for key, line in self._lines.items():
            self._link(session, key, line)
        self.freed(session)

    def unseat(self, session: Session) -> None:
        """The session is over."""
        self._sessions.pop(session.id, None)
        self._unlink(session)

    def withdraw(self, session: Session, requirement: Requirement) -> None:
        """The session no longer takes jobs of this capability key, until it is seated again."""
        session.withdrawn.add(requirement.key)
        for key in [key for key in session.lines if key[0] == requirement.key]:
            line = session.lines.pop(key)
            line.servers.pop(session.id, None)
            line.idle.pop(session.id, None)
            self._judge(key, line)

    def freed(self, session: Session) -> None:
        """The session's free tokens have changed."""
        for key, line in session.lines.items():
            if session.free:
                line.idle[session.id] = session
                if line.told:
                    self._stirred[key] = line
            else:
                line.idle.pop(session.id, None)

    def match(self, most: int) -> list[Match]:
        """Give up to `most` matches. The jobs leave their lines and the tokens are spent."""
        found: list[Match] = []
        while self._stirred and len(found) < most:
            key, line = next(iter(self._stirred.items()))
            if line.head() is None or not line.idle:
                del self._stirred[key]
                continue
            session = next(iter(line.idle.values()))
            found.append(self._take(session))
        return found

    def untold(self, most: int) -> list[tuple[int, Reason, str | None]]:
        """Give up to `most` waiting jobs whose reason differs from the one last told, with reason and detail.

        Each is given once; whoever takes it tells it.
        """
        found: list[tuple[int, Reason, str | None]] = []
        while self._unsettled and len(found) < most:
            key, line = next(iter(self._unsettled.items()))
            if not line.untold:
                del self._unsettled[key]
                continue
            detail = self.explain(line.requirement) if line.reason is Reason.NO_WORKER else None
            for job in list(line.untold)[: most - len(found)]:
                del line.untold[job]
                if line.told[job] is not line.reason:
                    line.told[job] = line.reason
                    found.append((job, line.reason, detail))
        return found

    def explain(self, requirement: Requirement) -> str:
        """Say what no session has that `requirement` asks for, and which session comes nearest."""
        best: tuple[int, str, str] | None = None
        for session in self._sessions.values():
            lack = missing(requirement, session.offer)
            if session.draining or lack is None:
                continue
            rank = _NEARNESS.index(lack.lack)
            if best is None or (rank, session.worker) > best[:2]:
                best = (rank, session.worker, f"{lack.lack} {lack.value}")
        if best is None:
            return f"no worker is there that takes jobs (wanted: {_wanted(requirement)})"
        return f"no worker offers {_wanted(requirement)}; nearest is {best[1]}, which lacks {best[2]}"

    def _take(self, session: Session) -> Match:
        line = self._policy(session.lines.values())
        job = line.head() if line is not None else None
        if line is None or job is None:
            raise LookupError("the policy found no job where one waits")
        match = Match(job, line.requirement, line.told[job], session, session.spend())
        self.remove(job)
        for served in session.lines.values():
            # to the end of the line of idle ones, so that work spreads
            served.idle.pop(session.id, None)
            if session.free:
                served.idle[session.id] = session
        return match

    def _open(self, key: LineKey, requirement: Requirement) -> Line:
        if len(self._lines) >= KEPT_LINES:
            self._forget_empty()
        line = self._lines[key] = Line(requirement)
        for session in self._sessions.values():
            self._link(session, key, line)
        return line

    def _forget_empty(self) -> None:
        for key in [key for key, line in self._lines.items() if not line.told]:
            line = self._lines.pop(key)
            self._stirred.pop(key, None)
            self._unsettled.pop(key, None)
            for session in line.servers.values():
                del session.lines[key]

    def _link(self, session: Session, key: LineKey, line: Line) -> None:
        if session.draining or key[0] in session.withdrawn or not serves(session.offer, line.requirement):
            return
        session.lines[key] = line
        line.servers[session.id] = session
        if session.free:
            line.idle[session.id] = session
        self._judge(key, line)

    def _unlink(self, session: Session) -> None:
        lines, session.lines = session.lines, {}
        for key, line in lines.items():
            line.servers.pop(session.id, None)
            line.idle.pop(session.id, None)
            self._judge(key, line)

    def _judge(self, key: LineKey, line: Line) -> None:
        """See whether the line's reason for waiting has changed, which concerns every job in it."""
        reason = Reason.BUSY if line.servers else Reason.NO_WORKER
        if reason is not line.reason:
            line.reason = reason
            self._note(key, line, line.told)

    def _note(self, key: LineKey, line: Line, jobs: Iterable[int]) -> None:
        line.untold |= dict.fromkeys(jobs)
        self._unsettled[key] = line


#: From the farthest to the nearest.
_NEARNESS = (Lack.ARCH, Lack.IMAGE, Lack.KVM, Lack.TAGS)


def _key(requirement: Requirement) -> LineKey:
    return (requirement.key, tuple(sorted(requirement.tags)))


def _wanted(requirement: Requirement) -> str:
    extras = (["kvm"] if requirement.kvm else []) + list(requirement.tags)
    return f"{requirement.image} on {requirement.arch}" + (f" with {', '.join(extras)}" if extras else "")
