"""Leases on the leader's clock: who is heard, who is lost, whose grant must be published again. Pure.

The clock moves only when the leader's own canary comes back through the queue that beats come through. So while the
broker is away, or this process stands still or lags behind its beats, no lease runs out. A new leader starts afresh.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class Held:
    """An attempt under way.

    Attributes:
        limit: seconds from its start until it is overdue.
        until: when the lease runs out, on the lease clock.
        overdue_at: when its limit, and the grace after it, are over.
        acknowledged: the worker has shown, by a beat or a status, that the grant reached it.
        beat: its session's beat that was the last before the grant; None where no beat was seen yet.
        cancelling: its worker is to end it.
    """

    grant: str
    job: int
    attempt: int
    worker: str
    limit: float
    until: float
    overdue_at: float
    acknowledged: bool = False
    beat: int | None = None
    cancelling: bool = False


class Leases:
    """The leases of one term of leadership."""

    def __init__(self, length: float, longest_tick: float) -> None:
        """`length`: seconds a lease lasts; `longest_tick`: the most seconds one return of the canary can be worth."""
        self._length = length
        self._longest_tick = longest_tick
        self._seen: float | None = None
        self._clock = 0.0
        self._sessions: dict[str, float] = {}
        self._held: dict[str, Held] = {}
        self._by_job: dict[int, str] = {}
        self._by_worker: dict[str, set[str]] = {}

    def __len__(self) -> int:
        """How many attempts are under way."""
        return len(self._held)

    def canary_back(self, now: float) -> None:
        """The canary came back at `now` (monotonic seconds): the clock moves."""
        if self._seen is not None:
            self._clock += min(max(now - self._seen, 0.0), self._longest_tick)
        self._seen = now

    def join(self, worker: str) -> None:
        """A session of `worker` is heard of: its lease begins or is renewed."""
        self._sessions[worker] = self._clock + self._length

    def leave(self, worker: str) -> None:
        """The session is over. Its attempts keep their own leases."""
        self._sessions.pop(worker, None)

    def hold(
        self, grant: str, job: int, attempt: int, worker: str, limit: float,
        *, elapsed: float = 0.0, beat: int | None = None, acknowledged: bool = False, cancelling: bool = False,
    ) -> Held:  # fmt: skip
        """Begin an attempt's lease.

        Args:
            limit: seconds after which it is overdue.
            elapsed: how much of that had gone by before this leader took over; a lease's length is always left.
        """
        left = max(limit - elapsed, self._length)
        held = Held(
            grant, job, attempt, worker, limit, self._clock + self._length, self._clock + left,
            acknowledged, beat, cancelling,
        )  # fmt: skip
        self._held[grant] = held
        self._by_job[job] = grant
        self._by_worker.setdefault(worker, set()).add(grant)
        return held

    def release(self, grant: str) -> None:
        """The attempt is over."""
        held = self._held.pop(grant, None)
        if held is None:
            return
        if self._by_job.get(held.job) == grant:
            del self._by_job[held.job]
        grants = self._by_worker[held.worker]
        grants.discard(grant)
        if not grants:
            del self._by_worker[held.worker]

    def get(self, grant: str) -> Held | None:
        return self._held.get(grant)

    def of_job(self, job: int) -> Held | None:
        """Give the attempt under way of `job`."""
        grant = self._by_job.get(job)
        return None if grant is None else self._held[grant]

    def of_worker(self, worker: str) -> list[Held]:
        """Give the attempts under way of `worker`."""
        return [self._held[grant] for grant in sorted(self._by_worker.get(worker, ()))]

    def unacknowledged(self) -> list[Held]:
        """Give the attempts whose grant may never have reached its worker."""
        return [held for held in self._held.values() if not held.acknowledged]

    def started(self, grant: str) -> None:
        """The guest runs: its time limit begins now."""
        held = self._held.get(grant)
        if held is not None:
            held.overdue_at = self._clock + max(held.limit, self._length)

    def heard(self, grant: str) -> None:
        """The worker spoke of the attempt: it has the grant, and its lease is renewed."""
        held = self._held.get(grant)
        if held is not None:
            held.acknowledged = True
            held.until = self._clock + self._length

    def beat(self, worker: str, number: int, listed: frozenset[str]) -> list[Held]:
        """Take a session's beat; give the attempts whose grant has to be published again.

        A beat may have been made just before a grant reached the session, so only the second one after the grant
        proves the message lost. Publishing it again is harmless: the worker answers with its last status.
        """
        self.join(worker)
        again = []
        for held in self.of_worker(worker):
            if held.grant in listed:
                self.heard(held.grant)
            elif held.acknowledged:
                continue  # it had the grant and has it no more: the lease runs out
            elif held.beat is None:
                held.beat = number
            elif number >= held.beat + 2:
                held.beat = number
                again.append(held)
        return again

    def lost_sessions(self) -> list[str]:
        """Give the workers that were not heard for a lease's length."""
        return [worker for worker, until in self._sessions.items() if until <= self._clock]

    def lost(self) -> list[Held]:
        """Give the attempts whose lease has run out."""
        return [held for held in self._held.values() if held.until <= self._clock]

    def overdue(self) -> list[Held]:
        """Give the attempts whose limit is over."""
        return [held for held in self._held.values() if held.overdue_at <= self._clock]
