"""Celery's side of the bench: an application as it comes, but that nothing is lost when a worker dies, and two tasks.

BENCH_BROKER is the broker's URL. BENCH_PIPE is a named pipe: each run of `nothing` writes a byte there, which costs
less than any result backend would.
"""

import os

from celery import Celery
from celery.signals import worker_process_init

app = Celery("noop_tasks", broker=os.environ["BENCH_BROKER"], backend="rpc://")
app.conf.update(
    task_acks_late=True,
    # persistent, as its default is: said, because it is what is compared
    task_default_delivery_mode="persistent",
    broker_connection_retry_on_startup=True,
)
_pipe = -1


@worker_process_init.connect
def _open_pipe(**_: object) -> None:
    global _pipe
    _pipe = os.open(os.environ["BENCH_PIPE"], os.O_WRONLY)


@app.task(ignore_result=True)
def nothing() -> None:
    """Do nothing; say so through the pipe."""
    os.write(_pipe, b".")


@app.task
def answered() -> None:
    """Do nothing; the result goes back to the caller over the broker."""
