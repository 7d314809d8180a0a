"""The logs that this worker can still send: of the grants it holds, and of settled ones for a while.

A log that has been confirmed may still get lost before it is proven; then logsink asks for it again.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from leveret_proto.messages import Grant, LogDigest
from leveret_worker.spool import GrantSpool, Spool

MIB = 1024 * 1024

Digests = Callable[[], Sequence[LogDigest]]


class Kept(NamedTuple):
    """The spooled logs of an attempt; `digests` gives the ends of those that are whole."""

    grant: Grant
    spool: GrantSpool
    digests: Digests


class Aged(NamedTuple):
    """Settled logs: since when (seconds, any clock) and how many bytes."""

    grant: str
    since: float
    bytes: int


def to_drop(settled: Iterable[Aged], now: float, seconds: float, most: int) -> list[str]:
    """Say which grants' logs go: those older than `seconds`, and the oldest while there are more than `most` bytes."""
    dropped = []
    newest_first = sorted(settled, key=lambda one: one.since, reverse=True)
    total = 0
    for one in newest_first:
        total += one.bytes
        if now - one.since > seconds or total > most:
            dropped.append(one.grant)
    return dropped


class KeptLogs:
    """Logs by job and attempt."""

    def __init__(self, spool: Spool, *, seconds: float, most: int) -> None:
        """
        Args:
            seconds: how long the logs of a settled grant stay.
            most: bytes that those may take together.
        """
        self._spool = spool
        self._seconds = seconds
        self._most = most
        #: By grant; `_newest` finds it by job and attempt.
        self._kept: dict[str, Kept] = {}
        self._newest: dict[tuple[int, int], str] = {}
        self._settled: dict[str, Aged] = {}
        for left in spool.kept():
            self._take_over(left)

    def find(self, job: int, attempt: int) -> Kept | None:
        return self._kept.get(self._newest.get((job, attempt), ""))

    def hold(self, grant: Grant, digests: Digests) -> None:
        """The grant has begun here, or was left by an earlier process."""
        self._put(Kept(grant, self._spool.grant(grant.grant), digests))

    def settle(self, grant: Grant) -> None:
        """The grant is over: from now on its logs stay as long as there is time and room."""
        digests = tuple(self._kept[grant.grant].digests())
        try:
            spool = self._spool.keep(grant.grant)
            size = spool.log_bytes()
        except OSError:  # a disk that takes no more; nothing is owed any longer
            self.forget(grant)
            return
        self._put(Kept(grant, spool, lambda: digests))
        self._settled[grant.grant] = Aged(grant.grant, time.time(), size)
        self.sweep()

    def forget(self, grant: Grant) -> None:
        """The grant is void, or its logs have been kept long enough."""
        which = grant.facts.job, grant.attempt
        if self._newest.get(which) == grant.grant:
            del self._newest[which]
        self._settled.pop(grant.grant, None)
        self._kept.pop(grant.grant).spool.remove()

    def sweep(self) -> None:
        """Drop what is too old or too much."""
        for name in to_drop(self._settled.values(), time.time(), self._seconds, self._most):
            self.forget(self._kept[name].grant)

    def _put(self, kept: Kept) -> None:
        self._kept[kept.grant.grant] = kept
        self._newest[kept.grant.facts.job, kept.grant.attempt] = kept.grant.grant

    def _take_over(self, left: GrantSpool) -> None:
        grant = left.read_grant()
        if grant is None:
            left.remove()
            return
        status = left.read_status()
        digests = () if status is None else status.logs
        self._put(Kept(grant, left, lambda: digests))
        self._settled[grant.grant] = Aged(grant.grant, left.kept_since(), left.log_bytes())
