"""`leveret-dispatcher`: the only writer of job state. It routes, leases, retries, and publishes events.

    stand by ─▶ lead: load the backlog ─▶ ask every session to report ─▶ consume ─▶ (stopped, deposed, something away)

Many may run; one leads, the rest stand by (leader.py). All a leader knows is in PostgreSQL, and what it keeps in memory
(desk.py) lasts as long as its term.
"""

import asyncio
from uuid import UUID, uuid4

import structlog

from leveret_dispatcher.config import APP, Config
from leveret_runtime.service import command, ready, require

require(APP, "asyncpg", "prometheus_client")

from leveret_dispatcher.canary import Canary  # noqa: E402
from leveret_dispatcher.commands.router import consume_commands  # noqa: E402
from leveret_dispatcher.desk import Desk  # noqa: E402
from leveret_dispatcher.granting import grant_for_ever, publish_again  # noqa: E402
from leveret_dispatcher.handlers.dead_letters import consume_dead_letters  # noqa: E402
from leveret_dispatcher.handlers.jobs import consume_jobs  # noqa: E402
from leveret_dispatcher.handlers.statuses import consume_statuses  # noqa: E402
from leveret_dispatcher.handlers.workers import consume_workers  # noqa: E402
from leveret_dispatcher.leader import Deposed, Leadership, stand_by  # noqa: E402
from leveret_dispatcher.metrics import leading  # noqa: E402
from leveret_dispatcher.waiting import end_vain_waits  # noqa: E402
from leveret_proto.messages import Report  # noqa: E402
from leveret_runtime.away import keep_going  # noqa: E402
from leveret_runtime.broker import Publisher, connection  # noqa: E402
from leveret_runtime.db import Database  # noqa: E402
from leveret_runtime.outbox import Outbox  # noqa: E402
from leveret_runtime.waits import in_own_task  # noqa: E402

log = structlog.get_logger(__name__)


async def serve(config: Config, stop: asyncio.Event) -> None:
    """Stand by and lead, in turns, until `stop` is set."""
    holder = uuid4()
    await keep_going(lambda: _with_database(config, holder, stop), stop)


async def _with_database(config: Config, holder: UUID, stop: asyncio.Event) -> None:
    async with Database.open(config.database_url, "dispatch") as database:
        await database.migrate("leveret_dispatcher")
        while not stop.is_set():
            ready("standing by")
            leadership = await stand_by(database, config, holder, stop)
            if leadership is None:
                return
            try:
                await in_own_task(_lead(config, database, leadership, stop))
            except* Deposed as deposed:
                log.warning("deposed", reason=str(deposed.exceptions[0]))
            finally:
                await leadership.release()


async def _lead(config: Config, database: Database, leadership: Leadership, stop: asyncio.Event) -> None:
    """Lead one term: until `stop` is set, and everything begun is done and told."""
    async with (
        asyncio.TaskGroup() as group,
        connection(config.amqp_url, "leveret-dispatcher: orders and events", heartbeat=config.heartbeat) as out,
        connection(config.amqp_url, "leveret-dispatcher: queues", heartbeat=config.heartbeat) as queues,
    ):
        keeper = group.create_task(leadership.keep())
        outbox = Outbox(database, APP, leadership.guard)
        publisher, events = await Publisher.open(out), await Publisher.open(out)
        public = await Publisher.open(out, confirms=False)
        desk = Desk(config, database, leadership, publisher, outbox.wake)
        await desk.load()
        canary = Canary(desk)
        all_done = asyncio.Event()
        teller = group.create_task(outbox.run(events, public, all_done))
        await _take_over(desk)
        async with leading(desk), asyncio.TaskGroup() as work:
            work.create_task(consume_jobs(desk, queues, stop))
            work.create_task(consume_workers(desk, canary, queues, stop))
            work.create_task(consume_statuses(desk, queues, stop))
            work.create_task(consume_commands(desk, queues, stop))
            work.create_task(consume_dead_letters(desk, queues, stop))
            work.create_task(grant_for_ever(desk, stop))
            work.create_task(end_vain_waits(desk, stop))
            work.create_task(canary.fly_for_ever(stop))
            ready(lambda: f"leading, epoch {leadership.epoch}; {desk.status}")
        all_done.set()
        await teller
        keeper.cancel()


async def _take_over(desk: Desk) -> None:
    """Have every session report, and publish again what the leader before may have granted but not published."""
    async with asyncio.TaskGroup() as group:
        for session in desk.sessions.values():
            group.create_task(desk.control(session.worker, session.id, Report()))
    await publish_again(desk, [held.grant for held in desk.leases.unacknowledged()])


main = command(APP, Config, serve)

if __name__ == "__main__":
    main()
