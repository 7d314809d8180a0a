"""`leveret-worker`: claims jobs, runs each in a machine of its own, sends back what happened. It has no database."""

import asyncio
import signal

from leveret_runtime.away import keep_going
from leveret_runtime.metrics import sampled
from leveret_runtime.service import command
from leveret_worker.config import Config
from leveret_worker.executors import open_executor
from leveret_worker.guests import Executor
from leveret_worker.metrics import sampler
from leveret_worker.probe_command import probe
from leveret_worker.session import run_session
from leveret_worker.spool import Spool, SpoolError
from leveret_worker.worker import Worker

#: Seconds.
GOODBYE_LIMIT = 5.0


async def serve(config: Config, stop: asyncio.Event) -> None:
    """Run the configured executor until `stop` is set; SIGHUP has everything proved again."""
    async with open_executor(config) as executor:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, executor.prove_soon)
        await work(config, executor, stop)


async def work(config: Config, executor: Executor, stop: asyncio.Event) -> None:
    """Run until `stop` is set and the worker is drained. Builds outlive connections: they belong to the worker."""
    try:
        spool = Spool(config.spool)
    except SpoolError as error:
        raise SystemExit(f"leveret-worker: {error}") from None
    try:
        worker = Worker(config, executor, spool)
        with sampled(sampler(worker)):
            await _serve_sessions(worker, stop)
    finally:
        spool.close()


async def _serve_sessions(worker: Worker, stop: asyncio.Event) -> None:
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        # no longer away than between beats: its lease runs as soon as the dispatcher is back
        served = keep_going(lambda: run_session(worker, over), over, longest=worker.config.beat_interval)
        session = group.create_task(served)
        await worker.run(stop)
        over.set()
        # the session says goodbye; without a broker there is nobody to say it to
        await asyncio.wait({session}, timeout=GOODBYE_LIMIT)
        session.cancel()


main = command("worker", Config, serve, probe)

if __name__ == "__main__":
    main()
