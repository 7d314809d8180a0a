"""`leveret-logsink`: stores streamed logs and artifacts, proves them whole, serves them over HTTP.

Chunks are stored (storing.py), job events say whose they are (record.py), the proof seals logs or gives them up
(proof.py), the outbox publishes that; followers get the live tail (tail.py), readers history (history.py) or HTTP
(web.py), and subscribers the events of the past (replay.py). All of them meet in the database or the broker: each can
crash, or run beside another logsink, without the others noticing.
"""

import asyncio

from leveret_runtime.service import command, ready, require

require("logsink", "asyncpg", "aiohttp")

from leveret_logsink.catalogue import Catalogue  # noqa: E402
from leveret_logsink.chunks import Kind  # noqa: E402
from leveret_logsink.config import LogsinkConfig  # noqa: E402
from leveret_logsink.history import History  # noqa: E402
from leveret_logsink.proof import Proof  # noqa: E402
from leveret_logsink.record import Record  # noqa: E402
from leveret_logsink.replay import answer_replays  # noqa: E402
from leveret_logsink.storage import Storage  # noqa: E402
from leveret_logsink.storing import WRITERS, Storing  # noqa: E402
from leveret_logsink.tail import Tail  # noqa: E402
from leveret_logsink.web import Site, serving  # noqa: E402
from leveret_proto import topology  # noqa: E402
from leveret_proto.keys import PARTITIONS  # noqa: E402
from leveret_runtime.away import keep_going  # noqa: E402
from leveret_runtime.broker import Consumer, Publisher, connection  # noqa: E402
from leveret_runtime.db import Database  # noqa: E402
from leveret_runtime.outbox import Outbox  # noqa: E402

#: Database connections: the writers' and those of everything else.
POOL = WRITERS + 8

_KINDS: tuple[Kind, ...] = ("log", "artifact")


async def serve(config: LogsinkConfig, stop: asyncio.Event) -> None:
    """Run until `stop` is set, through outages of broker and database."""

    async def session() -> None:
        async with Database.open(config.database_url, "logsink", size=POOL) as database:
            await database.migrate("leveret_logsink")
            storage, catalogue = Storage(config.storage), Catalogue(database)
            site = Site(catalogue, storage).application()
            # readers are served while the broker is away
            async with serving(site, config.host, config.port) as url:
                logsink = Logsink(config, database, storage, catalogue, url)
                await keep_going(lambda: logsink.consume(stop), stop)

    await keep_going(session, stop)


class Logsink:
    """The parts, and which of them wakes which."""

    def __init__(
        self, config: LogsinkConfig, database: Database, storage: Storage, catalogue: Catalogue, url: str
    ) -> None:
        self._config = config
        self._url = url
        self._outbox = Outbox(database, "logsink")
        self._tail = Tail(database, storage)
        self._proof = Proof(database, storage, config.logs_url or url)
        self._storing = Storing(config, database, storage, self._wake_readers)
        self._record = Record(database, config.end_wait, self._wake_readers)
        self._history = History(catalogue, storage)

    async def consume(self, stop: asyncio.Event) -> None:
        """Do everything that needs the broker, until `stop` is set. Raises Away when something is lost."""
        broker = self._config.amqp_url
        async with (
            connection(broker, "leveret-logsink control") as control,
            connection(broker, "leveret-logsink bulk") as bulk,
            asyncio.TaskGroup() as group,
        ):
            publisher = await Publisher.open(control)
            public = await Publisher.open(control, confirms=False)
            live = await Publisher.open(bulk, confirms=False)
            group.create_task(self._outbox.run(publisher, public, stop))
            group.create_task(self._proof.run(self._wake_publishers, stop))
            group.create_task(self._tail.run(live, stop))
            group.create_task(answer_replays(broker, stop))
            for queue, run in (
                (topology.LOGSINK_RECORD, self._record.run),
                (topology.LOGSINK_HISTORY, self._history.run),
            ):
                consumer = await Consumer.open(control, queue, prefetch=topology.queue(queue).prefetch, stop=stop)
                group.create_task(run(consumer, publisher))
            for kind in _KINDS:
                for partition in range(PARTITIONS):
                    consumer = await self._storing.open(bulk, kind, partition, stop)
                    group.create_task(self._storing.run(consumer, publisher, kind, partition))
            ready(f"serving {self._url}")

    def _wake_readers(self) -> None:
        """Something was stored, or learned of a job."""
        self._tail.wake()
        self._proof.wake()

    def _wake_publishers(self) -> None:
        """A log was sealed or given up."""
        self._tail.wake()
        self._outbox.wake()


main = command("logsink", LogsinkConfig, serve)

if __name__ == "__main__":
    main()
