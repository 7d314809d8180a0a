"""Which waiting jobs are to be told why they wait: those whose reason is not the one last told. Pure.

No worker serves the job: `no-worker`. Else its owner runs as many jobs as it may: `limit`. Else every worker is `busy`.

The unit is the queue, which keeps its jobs by what they were told: a change of reason costs nothing until jobs are
told, and then only for those that are. An owner at its limit falls below it for a moment with every job that ends, and
all its jobs would flap between `limit` and `busy`. So a job that was told one of these is told the other only when the
change has stood for SETTLE seconds; every other change is told at once.
"""

from collections import deque
from collections.abc import Callable
from itertools import islice

from leveret_dispatcher.fair_share import Owner
from leveret_dispatcher.line import LineKey, Queue
from leveret_proto.capability import Requirement
from leveret_proto.messages import Reason

#: Seconds that a change between `busy` and `limit` must stand before jobs are told.
SETTLE = 5.0

#: Job, reason, detail.
Untold = tuple[int, Reason, str | None]


class Reasons:
    """The queues in which some job may have to be told."""

    def __init__(self, explain: Callable[[Requirement], str]) -> None:
        """`explain` says in words what no worker offers."""
        self._explain = explain
        self._unsettled: dict[Queue, None] = {}
        #: Owners that reached their limit or fell below it since the last look.
        self._changed: dict[Owner, None] = {}
        #: When an owner's change was seen, the oldest first; void if it has changed again.
        self._standing: deque[tuple[float, Owner]] = deque()

    def note(self, queue: Queue) -> None:
        """A job joined the queue, or its line is served now, or no more."""
        self._unsettled[queue] = None

    def forget(self, queue: Queue) -> None:
        """The queue is empty."""
        self._unsettled.pop(queue, None)

    def changed(self, owner: Owner) -> None:
        """The owner reached its limit or fell below it."""
        owner.since = None
        self._changed[owner] = None

    def untold(self, most: int, now: float) -> list[Untold]:
        """Give up to `most` jobs to be told. Each is given once; whoever takes it tells it.

        Args:
            now: monotonic seconds.
        """
        self._settle(now)
        found: list[Untold] = []
        words: dict[LineKey, str] = {}
        while self._unsettled and len(found) < most:
            queue = next(iter(self._unsettled))
            due = self._due(queue, most - len(found), now)
            if not due:
                del self._unsettled[queue]
                continue
            reason, detail = queue.reason, None
            if reason is Reason.NO_WORKER:
                key = queue.line.key
                if key not in words:
                    words[key] = self._explain(queue.line.requirement)
                detail = words[key]
            elif reason is Reason.LIMIT:
                detail = f"at most {queue.owner.limit} of {queue.owner.name}'s jobs may run at once"
            for job, told in due:
                del queue.told[told][job]
                queue.told.setdefault(reason, {})[job] = None
                found.append((job, reason, detail))
        return found

    def _settle(self, now: float) -> None:
        for owner in self._changed:
            owner.since = now
            self._standing.append((now, owner))
        self._changed.clear()
        while self._standing and self._standing[0][0] + SETTLE <= now:
            since, owner = self._standing.popleft()
            if owner.since == since:
                self._unsettled |= dict.fromkeys(owner.queues.values())

    def _due(self, queue: Queue, most: int, now: float) -> list[tuple[int, Reason]]:
        """Give jobs of the queue to be told, with what they were told last."""
        fine = {queue.reason}
        since = queue.owner.since
        if queue.reason is not Reason.NO_WORKER and (since is None or now < since + SETTLE):
            fine = {Reason.BUSY, Reason.LIMIT}
        due = ((job, told) for told, jobs in queue.told.items() if told not in fine for job in jobs)
        return list(islice(due, most))
