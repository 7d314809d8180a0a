"""What an earlier process of this worker left in the spool: never run again, but its results are still delivered."""

import asyncio

import structlog

from leveret_proto.messages import AttemptState, AttemptStatus, Grant, HeldGrant, LogDigest
from leveret_worker.announcer import Announcer
from leveret_worker.backlog import Backlog
from leveret_worker.couriers import log_sender
from leveret_worker.log_limit import JobLimit, LogLimit
from leveret_worker.logs import SpooledLog
from leveret_worker.outlet import Outlet
from leveret_worker.spool import GrantSpool, Spool

log = structlog.get_logger(__name__)


class Leftover:
    """A spooled result, held until it is settled."""

    def __init__(self, grant: Grant, status: AttemptStatus, spool: GrantSpool, control: Outlet, bulk: Outlet) -> None:
        self.grant = grant
        self.announcer = Announcer(control)
        self._status = status
        self._spool = spool
        self._bulk = bulk
        self.over = asyncio.Event()
        self.over.set()

    def held(self) -> HeldGrant:
        """What a beat says of this grant."""
        return HeldGrant(
            grant=self.grant.grant,
            job=self.grant.facts.job,
            attempt=self.grant.attempt,
            state=AttemptState.ENDED,
            seq=self._status.seq,
        )

    def digests(self) -> tuple[LogDigest, ...]:
        """Give the ends of the logs that are whole."""
        return self._status.logs

    async def run(self) -> None:
        """Deliver logs and the result, and return when it is settled.

        Artifacts were confirmed before the result was written down.
        """
        async with asyncio.TaskGroup() as couriers:
            couriers.create_task(_deliver_logs(self.grant, self._spool, self._bulk, whole=True))
            self.announcer.say(self._status)
            await self.announcer.run()


class LostBuild:
    """A build that died with the worker: its attempt is lost, the log up to then is delivered."""

    def __init__(self, grant: Grant, spool: GrantSpool, bulk: Outlet) -> None:
        self.grant = grant
        self._spool = spool
        self._bulk = bulk

    async def run(self) -> None:
        """Deliver what there is."""
        await _deliver_logs(self.grant, self._spool, self._bulk, whole=False)


def sort_out(spool: Spool, control: Outlet, bulk: Outlet) -> tuple[list[Leftover], list[LostBuild]]:
    """Read what the spool holds from an earlier process."""
    results: list[Leftover] = []
    lost: list[LostBuild] = []
    for left in spool.left():
        grant, status = left.read_grant(), left.read_status()
        if grant is None:
            left.remove()
        elif status is not None:
            results.append(Leftover(grant, status, left, control, bulk))
        else:
            log.warning("build lost with an earlier process", job=grant.facts.job, attempt=grant.attempt)
            lost.append(LostBuild(grant, left, bulk))
    return results, lost


async def _deliver_logs(grant: Grant, spool: GrantSpool, bulk: Outlet, *, whole: bool) -> None:
    """Publish every spooled log; with its end only where it is known to be `whole`."""
    backlog, limit = Backlog(2**63), LogLimit(2**63, JobLimit(2**63))  # nothing is added
    async with asyncio.TaskGroup() as couriers:
        for name in spool.log_names():
            spooled = SpooledLog(spool.log_path(name), grant.grant, name, limit=limit, backlog=backlog)
            spooled.finish(whole=whole)
            couriers.create_task(spooled.deliver(log_sender(bulk, grant, name)))
