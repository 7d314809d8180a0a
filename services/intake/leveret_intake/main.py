"""`leveret-intake`: the service process. Any number of intakes may share the submissions queue."""

import asyncio
from uuid import uuid4

from leveret_intake.config import Config
from leveret_proto.topology import INTAKE_SUBMISSIONS, queue
from leveret_runtime.service import command, ready, require


async def serve(config: Config, stop: asyncio.Event) -> None:
    """Take submissions until `stop` is set."""
    require("intake", "asyncpg", "prometheus_client")
    from leveret_runtime.away import keep_going

    await keep_going(lambda: _session(config, stop), stop)


async def _session(config: Config, stop: asyncio.Event) -> None:
    """Work over one connection to each of broker and database, until one is lost (Away) or `stop` is set."""
    from leveret_intake.intake import APP, Intake
    from leveret_intake.store import Store
    from leveret_runtime.broker import Consumer, Publisher, connection
    from leveret_runtime.db import Database

    prefetch = queue(INTAKE_SUBMISSIONS).prefetch
    async with Database.open(config.database_url, "intake") as database:
        await database.migrate("leveret_intake")
        async with connection(config.amqp_url, f"leveret-{APP}") as broker:
            publisher = await Publisher.open(broker)
            public = await Publisher.open(broker, confirms=False)
            intake = Intake(
                Store(database, uuid4()), publisher, public, stop,
                limits=config.limits, default_arch=config.default_arch,
            )  # fmt: skip
            consumer = await Consumer.open(broker, INTAKE_SUBMISSIONS, prefetch=prefetch, stop=stop)
            ready("taking submissions")
            async with asyncio.TaskGroup() as handling:  # at most `prefetch` at a time
                async for message in consumer:
                    handling.create_task(intake.handle(message))


main = command("intake", Config, serve)

if __name__ == "__main__":
    main()
