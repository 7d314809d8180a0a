"""Where jobs and sessions meet: lines, one a requirement, and in each line one queue an owner. Pure."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from leveret_dispatcher.fair_share import Owner
from leveret_dispatcher.ranking import Ranking
from leveret_proto.capability import Capabilities, Requirement, capability_key
from leveret_proto.messages import Halt, Reason

#: The capability key, the tags, memory and processors.
LineKey = tuple[str, tuple[str, ...], int, int]


@dataclass(slots=True, eq=False)
class Session:
    """A live session of a worker: its offer and its free slots."""

    worker: str
    id: str
    spool: str
    offer: Capabilities
    slots: int
    #: By its own word it takes no more jobs.
    draining: bool = False
    #: What secrets are sealed to for it; it carries SECRETS_TAG only where it has one.
    public_key: str | None = None
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
    #: Why its worker is given no jobs, whatever it says.
    halt: Halt | None = None

    @property
    def welcomes_jobs(self) -> bool:
        return not self.draining and self.halt is None

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


@dataclass(slots=True, eq=False)
class Queue:
    """An owner's jobs in a line: the highest priority first, then the lowest id."""

    owner: Owner
    line: "Line"
    #: Ranked by the negative priority.
    jobs: Ranking[int] = field(default_factory=Ranking)
    #: Reason for waiting → jobs that were last told of it.
    told: dict[Reason, dict[int, None]] = field(default_factory=dict)

    def add(self, job: int, priority: int, told: Reason) -> None:
        self.jobs.put(job, -priority)
        self.told.setdefault(told, {})[job] = None

    def remove(self, job: int) -> Reason:
        """The job leaves; give the reason it was told of."""
        self.jobs.drop(job)
        for reason, jobs in self.told.items():
            if job in jobs:
                del jobs[job]
                return reason
        raise LookupError(f"job {job} is not in this queue")

    def priority(self, job: int) -> int:
        return -self.jobs.rank(job)[0]

    @property
    def reason(self) -> Reason:
        """Why its jobs wait at present."""
        if not self.line.servers:
            return Reason.NO_WORKER
        return Reason.LIMIT if self.owner.limited else Reason.BUSY


@dataclass(slots=True, eq=False)
class Line:
    """Waiting jobs of one requirement, and the sessions that serve it."""

    key: LineKey
    requirement: Requirement
    #: By owner's name; none is empty.
    queues: dict[str, Queue] = field(default_factory=dict)
    #: Where the line is served: the owners below their limit, by their ranks. A rank that has grown since is put right
    #: when it comes up; one that has fallen is put right at once.
    turns: Ranking[str] = field(default_factory=Ranking)
    servers: dict[str, Session] = field(default_factory=dict)
    #: Servers with a free slot, the least recently used first.
    idle: OrderedDict[str, Session] = field(default_factory=OrderedDict)

    def turn(self) -> Queue | None:
        """Give the queue of the owner whose turn it is."""
        while (name := self.turns.first()) is not None:
            queue = self.queues[name]
            if queue.owner.limited:
                self.turns.drop(name)  # back when one of its jobs has ended
            elif self.turns.rank(name) == queue.owner.rank:
                return queue
            else:
                self.turns.put(name, *queue.owner.rank)
        return None


def line_key(requirement: Requirement) -> LineKey:
    """Give what all jobs of one line have in common."""
    return _line_key(
        requirement.arch,
        requirement.image,
        requirement.kvm,
        requirement.tags,
        requirement.memory_mib,
        requirement.cpus,
    )


@lru_cache(4096)
def _line_key(arch: str, image: str, kvm: bool, tags: tuple[str, ...], memory_mib: int, cpus: int) -> LineKey:
    return (capability_key(arch, image, kvm), tuple(sorted(tags)), memory_mib, cpus)
