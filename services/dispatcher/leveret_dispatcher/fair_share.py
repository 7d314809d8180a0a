"""Fair share: whose turn it is. Pure.

It is that of the owner with the fewest jobs granted or running; of several such, of the one whose last grant is the
longest ago. An owner that runs as many jobs as its limit allows has no turn.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leveret_dispatcher.line import LineKey, Queue

#: Owners without jobs that are remembered. Whoever comes back is not taken for somebody who never had a turn, or an
#: owner with one job at a time would go before all others for ever.
KEPT_OWNERS = 10_000


@dataclass(slots=True, eq=False)
class Owner:
    """An owner's share.

    Attributes:
        number: in the order in which owners came.
        limit: the most jobs granted or running; None: no limit.
        running: jobs granted or running.
        granted: the number of its last grant, counted over all owners; 0 before the first.
        queues: its queues in lines that some session serves.
        since: when `limited` was first seen to be as it is; None where it has changed and nobody has looked yet.
    """

    name: str
    number: int
    limit: int | None
    running: int = 0
    granted: int = 0
    #: Its queues, served or not.
    waiting: int = 0
    queues: "dict[LineKey, Queue]" = field(default_factory=dict)
    since: float | None = float("-inf")

    @property
    def rank(self) -> tuple[int, int, int]:
        """The least goes first."""
        return (self.running, self.granted, self.number)

    @property
    def limited(self) -> bool:
        """Whether it runs as many jobs as it may."""
        return self.limit is not None and self.running >= self.limit


class Owners:
    """Every owner that has jobs, and those that had some lately."""

    def __init__(self, limit_of: Callable[[str], int | None]) -> None:
        self._limit_of = limit_of
        self._owners: dict[str, Owner] = {}
        self._resting: OrderedDict[str, None] = OrderedDict()
        self._numbers = 0
        self._grants = 0

    def get(self, name: str) -> Owner:
        """Give the owner of that name, who is about to have a job."""
        self._resting.pop(name, None)
        owner = self._owners.get(name)
        if owner is None:
            self._numbers += 1
            owner = self._owners[name] = Owner(name, self._numbers, self._limit_of(name))
        return owner

    def grant(self, owner: Owner) -> None:
        """One more of its jobs is granted, by its turn."""
        self._grants += 1
        owner.granted = self._grants
        owner.running += 1

    def rest(self, owner: Owner) -> None:
        """Forget the owner in time, if it has no job at all."""
        if owner.running or owner.waiting:
            return
        self._resting[owner.name] = None
        self._resting.move_to_end(owner.name)
        if len(self._resting) > KEPT_OWNERS:
            name, _ = self._resting.popitem(last=False)
            del self._owners[name]
