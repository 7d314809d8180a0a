"""Leadership: one row in PostgreSQL says who leads, and under which epoch. Everyone else stands by.

A session lock would not do: a frozen process keeps its connection. So the row is renewed, goes stale by PostgreSQL's
clock, and every transaction of the leader checks its epoch under a lock that a successor has to wait for.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from leveret_dispatcher.config import Config
from leveret_runtime.away import DatabaseAway
from leveret_runtime.waits import pause

if TYPE_CHECKING:
    from leveret_runtime.db import Connection, Database

log = structlog.get_logger(__name__)

#: Seconds that releasing may take before the process ends without.
RELEASE_LIMIT = 5.0


class Deposed(Exception):
    """Another process leads now; nothing was changed."""


class Leadership:
    """One term: this process leads under `epoch` until deposed or released."""

    def __init__(self, database: "Database", epoch: int, *, renew: float) -> None:
        """`renew`: seconds between renewals."""
        self._database = database
        self.epoch = epoch
        self._renew = renew

    async def check(self, on: "Connection") -> datetime:
        """Fence the transaction; give its time. Raises Deposed.

        The key-share lock lets this leader's own renewals pass and makes a successor wait until the transaction ends.
        """
        now: datetime | None = await on.fetchval("select now() from leader where epoch = $1 for key share", self.epoch)
        if now is None:
            raise Deposed(f"epoch {self.epoch} is over")
        return now

    async def guard(self, on: "Connection") -> None:
        """As `check`, for the outbox."""
        await self.check(on)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["Connection"]:
        """Open a fenced transaction for what is kept in the database alone. Raises Deposed, DatabaseAway.

        It takes no part in the order of the desk's transactions: nothing waits for it, and it waits for nothing.
        """
        async with self._database.transaction() as on:
            await self.check(on)
            yield on

    async def keep(self) -> None:
        """Renew the row for ever. Raises Deposed, DatabaseAway."""
        while True:
            await asyncio.sleep(self._renew)
            async with self._database.connection() as on:
                renewed = await on.fetchval(
                    "update leader set renewed_at = clock_timestamp() where epoch = $1 returning epoch", self.epoch
                )
            if renewed is None:
                raise Deposed(f"epoch {self.epoch} is over")

    async def release(self) -> None:
        """Let a standby take over at once. Where that fails, the row goes stale by itself."""
        try:
            async with asyncio.timeout(RELEASE_LIMIT), self._database.connection() as on:
                await on.execute("update leader set holder = null where epoch = $1", self.epoch)
        except (DatabaseAway, TimeoutError) as error:
            log.warning("leadership not released, it will go stale", reason=str(error))


async def stand_by(database: "Database", config: Config, holder: UUID, stop: asyncio.Event) -> Leadership | None:
    """Wait until this process may lead; None when `stop` was set first. Raises DatabaseAway."""
    told = False
    while not stop.is_set():
        epoch = await take(database, holder, config.leader_stale)
        if epoch is not None:
            log.info("leading", epoch=epoch)
            return Leadership(database, epoch, renew=config.leader_renew)
        if not told:
            log.info("standing by")
            told = True
        await pause(config.standby_look, stop)
    return None


async def take(database: "Database", holder: UUID, stale: float) -> int | None:
    """Take the leadership if it is free, ours from before, or stale for `stale` seconds; give the new epoch."""
    async with database.connection() as on:
        if not await on.fetchval(_FREE, holder, stale):
            return None
        await on.execute(_END_FROZEN, stale)
    async with database.transaction() as on:
        # waits for what the predecessor has under way, then looks again
        await on.execute("select from leader for update")
        if not await on.fetchval(_FREE, holder, stale):
            return None
        epoch: int = await on.fetchval(
            "update leader set epoch = epoch + 1, holder = $1, renewed_at = clock_timestamp() returning epoch", holder
        )
        return epoch


#: A frozen leader's transaction would hold its successor up, and PostgreSQL's time limit for idle ones does not reach a
#: client that stopped in the middle of a statement. Only what waits for a leader gone stale is ended.
_END_FROZEN = """
    select pg_terminate_backend(a.pid)
    from pg_locks l join pg_stat_activity a on a.pid = l.pid and a.datname = current_database()
    where l.relation = 'leader'::regclass and l.pid <> pg_backend_pid() and a.wait_event = 'ClientRead'
      and exists (select from leader where renewed_at < clock_timestamp() - make_interval(secs => $1))
"""

_FREE = """
    select holder is null or holder = $1 or renewed_at < clock_timestamp() - make_interval(secs => $2) from leader
"""
