"""Says how an attempt stands, until the dispatcher has settled it. Snapshots are cumulative: only the newest counts."""

import asyncio

from leveret_proto import keys
from leveret_proto.envelope import pack
from leveret_proto.messages import AttemptState, AttemptStatus
from leveret_proto.topology import STATUS
from leveret_runtime.failpoints import failpoint
from leveret_runtime.waits import first
from leveret_worker.outlet import Outlet


class Announcer:
    """The status courier of one grant."""

    def __init__(self, control: Outlet) -> None:
        self._control = control
        self._newest: AttemptStatus | None = None
        self._due = asyncio.Event()
        self._settled = asyncio.Event()
        #: Set when the result has been confirmed, or nobody wants it any more.
        self.told = asyncio.Event()

    def say(self, status: AttemptStatus) -> None:
        """Send `status` as soon as may be; an older one that still waits is passed over."""
        self._newest = status
        self._due.set()

    def repeat(self) -> None:
        """Send the newest status again."""
        self._due.set()

    def settle(self) -> None:
        """The dispatcher has the result: nothing more is to be said."""
        self._settled.set()

    async def run(self) -> None:
        """Send until settled."""
        try:
            await self._send_all()
        finally:
            self.told.set()

    async def _send_all(self) -> None:
        while not self._settled.is_set():
            if await first(self._due.wait(), self._settled) is None:
                return
            self._due.clear()
            if self._newest is not None:
                status = self._newest
                await self._control.send(STATUS, keys.status(status.worker, status.job, status.attempt), pack(status))
                failpoint("worker.status.sent")
                if status.state is AttemptState.ENDED:
                    self.told.set()
