"""`leveret-worker`: claims jobs, runs each in a machine of its own, sends back what happened. It has no database."""

import asyncio

from leveret_runtime.away import keep_going
from leveret_runtime.service import command
from leveret_worker.config import Config
from leveret_worker.executors import make_executor
from leveret_worker.session import run_session
from leveret_worker.spool import Spool, SpoolError
from leveret_worker.worker import Worker


async def serve(config: Config, stop: asyncio.Event) -> None:
    """Run until `stop` is set and the worker is drained. Builds outlive connections: they belong to the worker."""
    try:
        spool = Spool(config.spool)
    except SpoolError as error:
        raise SystemExit(f"leveret-worker: {error}") from None
    try:
        worker = Worker(config, make_executor(config), spool)
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            session = group.create_task(keep_going(lambda: run_session(worker, over), over))
            await worker.run(stop)
            over.set()
            # the session says goodbye; without a broker there is nobody to say it to
            await asyncio.wait({session}, timeout=GOODBYE_LIMIT)
            session.cancel()
    finally:
        spool.close()


#: Seconds.
GOODBYE_LIMIT = 5.0

main = command("worker", Config, serve)

if __name__ == "__main__":
    main()
