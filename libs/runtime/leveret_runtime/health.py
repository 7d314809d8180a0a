"""Whether this process serves, and what it waits for: what `/ready` answers and the metrics show. Pure.

A process is a tree of parts, each of which `away.keep_going` begins again after an outage. A part that has once said
`serving` is waited for until it says so again; one that never does, as the watcher of a disk, only until its next try.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(eq=False)
class Part:
    """One loop of the process.

    Attributes:
        parent: the part that it runs in.
        announces: it has said that it serves, or a part within it has.
        waits_for: what it lacks, in words; None while it lacks nothing that is known.
    """

    parent: "Part | None"
    announces: bool = False
    waits_for: str | None = None

    def begins(self) -> None:
        """It is tried (again)."""
        if not self.announces:
            self.waits_for = None


class Health:
    """The health of one process."""

    def __init__(self) -> None:
        self._does: Callable[[], str] = lambda: "starting"
        #: Times that something was away, by what it was: `broker`, `database`, `storage`.
        self.outages = Counter[str]()
        self._served = False
        self._stopping = False
        self._parts: set[Part] = set()
        self._within: ContextVar[Part | None] = ContextVar("part", default=None)

    @property
    def ready(self) -> bool:
        """Whether all that has to be there is there, and the process has not been told to stop."""
        return self._served and not self._stopping and not self.waits_for

    @property
    def waits_for(self) -> tuple[str, ...]:
        """What is lacking, in words."""
        return tuple(sorted({part.waits_for for part in self._parts if part.waits_for is not None}))

    @property
    def moving(self) -> bool:
        """Whether the process is between two states: it starts, or was told to stop and ends what is under way."""
        return self._stopping or not self._served

    @property
    def told(self) -> str:
        """How things stand, in a line."""
        said = "waiting for " + "; ".join(self.waits_for) if self.waits_for else self._does()
        return " ".join(f"stopping; {said}".split() if self._stopping else said.split())

    @contextmanager
    def part(self) -> Iterator[Part]:
        """A loop of the process, for the time of the block; whatever runs in the block is part of it."""
        part = Part(self._within.get())
        self._parts.add(part)
        token = self._within.set(part)
        try:
            yield part
        finally:
            self._within.reset(token)
            self._parts.discard(part)

    def serving(self, does: Callable[[], str]) -> None:
        """The part in which this is said is connected and works, and so are those that it runs in.

        `does` says what the process does, in a few words, whenever it is asked.
        """
        self._does = does
        self._served = True
        part = self._within.get()
        while part is not None:
            part.announces, part.waits_for = True, None
            part = part.parent

    def away(self, part: Part, what: str, reason: str) -> None:
        """`part` has lost, or did not find, `what`."""
        part.waits_for = reason
        self.outages[what] += 1

    def stopping(self) -> None:
        """The process was told to stop."""
        self._stopping = True


#: This process's.
HEALTH = Health()
