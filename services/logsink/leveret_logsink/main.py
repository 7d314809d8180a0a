"""`leveret-logsink`: stores streamed logs and artifacts, proves them whole, serves them over HTTP.

Chunks are stored (storing.py), job events say whose they are (record.py), the proof seals logs or gives them up
(proof.py) after what is missing was asked for again (resend.py), the outbox publishes that; followers get the live tail
(tail.py), readers history and links over the broker (answering.py) or HTTP (web.py, live.py), and subscribers the
events of the past (replay.py). Sealed logs are compressed (compression.py), old ones removed (retention.py,
leftovers.py); while there is no room, nothing is taken (space.py). All of them meet in the database or the broker: each
can crash, or run beside another logsink, without the others noticing.
"""

import asyncio
from contextlib import AsyncExitStack
from functools import partial

from leveret_runtime.service import command, ready, require

require("logsink", "asyncpg", "aiohttp", "prometheus_client", "zstandard")

from leveret_logsink.answering import Answering  # noqa: E402
from leveret_logsink.catalogue import Catalogue  # noqa: E402
from leveret_logsink.chunks import Kind  # noqa: E402
from leveret_logsink.compression import Compression  # noqa: E402
from leveret_logsink.config import LogsinkConfig  # noqa: E402
from leveret_logsink.history import History  # noqa: E402
from leveret_logsink.leftovers import Leftovers  # noqa: E402
from leveret_logsink.links import Links  # noqa: E402
from leveret_logsink.live import Live  # noqa: E402
from leveret_logsink.metrics import sampler  # noqa: E402
from leveret_logsink.news import News  # noqa: E402
from leveret_logsink.proof import Proof  # noqa: E402
from leveret_logsink.record import Record  # noqa: E402
from leveret_logsink.replay import answer_replays  # noqa: E402
from leveret_logsink.resend import Resending  # noqa: E402
from leveret_logsink.retention import Retention  # noqa: E402
from leveret_logsink.space import Space  # noqa: E402
from leveret_logsink.storage import Storage  # noqa: E402
from leveret_logsink.storing import WRITERS, Storing  # noqa: E402
from leveret_logsink.tail import Tail  # noqa: E402
from leveret_logsink.web import SHUTDOWN_LIMIT, Site  # noqa: E402
from leveret_proto import topology  # noqa: E402
from leveret_proto.keys import PARTITIONS  # noqa: E402
from leveret_runtime.away import keep_going  # noqa: E402
from leveret_runtime.broker import Consumer, Publisher, connection  # noqa: E402
from leveret_runtime.db import Database  # noqa: E402
from leveret_runtime.http_server import serving  # noqa: E402
from leveret_runtime.metrics import sampled  # noqa: E402
from leveret_runtime.outbox import Outbox, lag  # noqa: E402

#: Database connections: the writers' and those of everything else.
POOL = WRITERS + 8

_KINDS: tuple[Kind, ...] = ("log", "artifact")


async def serve(config: LogsinkConfig, stop: asyncio.Event) -> None:
    """Run until `stop` is set, through outages of broker and database."""

    async def session() -> None:
        async with Database.open(config.database_url, "logsink", size=POOL) as database, AsyncExitStack() as shown:
            await database.migrate("leveret_logsink")
            storage, catalogue, news = Storage(config.storage), Catalogue(database), News(database)
            live = Live(news, storage, config.live_readers, config.live_stall)
            site = Site(catalogue, storage, live, config.signer).application()
            # readers are served while the broker is away
            server = serving(site, config.host, config.port, who="leveret-logsink", patience=SHUTDOWN_LIMIT)
            async with server as url, asyncio.TaskGroup() as group:
                compression = Compression(database, storage)
                retention = Retention(database, storage, config.keep_days, config.keep_days_of)
                space = Space(storage, config.free_floor, retention.wake)
                shown.enter_context(sampled(sampler(space, live)))
                shown.enter_context(sampled(lag(database)))
                logsink = Logsink(config, database, storage, space, compression, catalogue, news, url)
                for part in (news, space, compression, retention, Leftovers(database, storage)):
                    group.create_task(keep_going(partial(part.run, stop), stop))
                group.create_task(keep_going(lambda: logsink.consume(stop), stop))

    await keep_going(session, stop)


class Logsink:
    """The parts, and which of them wakes which."""

    def __init__(
        self,
        config: LogsinkConfig,
        database: Database,
        storage: Storage,
        space: Space,
        compression: Compression,
        catalogue: Catalogue,
        news: News,
        url: str,
    ) -> None:
        self._config = config
        self._url = url
        self._outbox = Outbox(database, "logsink")
        self._tail = Tail(database, storage)
        self._news = news
        self._proof = Proof(database, storage, config.logs_url or url)
        self._resending = Resending(database, config.resend_after, config.end_wait)
        self._space = space
        self._compression = compression
        self._storing = Storing(config, database, storage, space, self._stored)
        self._record = Record(database, config.end_wait, self._learned)
        links = Links(catalogue, config.signer, config.logs_url or url)
        self._answering = Answering(History(catalogue, storage), links)

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
            probing = await Publisher.open(bulk)
            group.create_task(self._outbox.run(publisher, public, stop))
            group.create_task(self._proof.run(self._wake_publishers, stop))
            group.create_task(self._resending.run(publisher, stop))
            group.create_task(self._tail.run(live, probing, stop))
            group.create_task(answer_replays(broker, stop))
            for queue, run in (
                (topology.LOGSINK_RECORD, self._record.run),
                (topology.LOGSINK_HISTORY, self._answering.run),
            ):
                consumer = await Consumer.open(control, queue, prefetch=topology.queue(queue).prefetch, stop=stop)
                group.create_task(run(consumer, publisher))
            await self._space.look(trial=True)
            for kind in _KINDS:
                for partition in range(PARTITIONS):
                    chunks = await self._storing.open(bulk, kind, partition, stop)
                    group.create_task(self._storing.run(bulk, chunks, publisher, kind, partition, stop))
            ready(self._status)

    def _status(self) -> str:
        why = self._space.condition.why
        return f"serving {self._url}" + (f" but takes nothing: {why}" if why else "")

    def _stored(self, complete: bool) -> None:
        """Something was stored; `complete`: there may be something to prove."""
        self._tail.wake()
        self._news.wake()
        if complete:
            self._proof.wake()

    def _learned(self) -> None:
        """Something was learned of a job: whose it is, or that an attempt is over."""
        self._tail.wake()
        self._proof.wake()

    def _wake_publishers(self) -> None:
        """A log was sealed or given up."""
        self._tail.wake()
        self._news.wake()
        self._compression.wake()
        self._outbox.wake()


main = command("logsink", LogsinkConfig, serve)

if __name__ == "__main__":
    main()
