"""Runs a subcommand's coroutine: signals cancel it, every expected error becomes one line and an exit status."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import click

from leveret_client import exits
from leveret_client.errors import (
    ClientError,
    CommandRefused,
    CursorUnusable,
    DownloadError,
    NoAnswer,
    NotAllowed,
    NotFound,
    NotReached,
    SubmissionFailed,
)

_STATUS: dict[type[ClientError], int] = {
    NotReached: exits.NOT_REACHED,
    NoAnswer: exits.NOT_REACHED,
    NotAllowed: exits.NOT_FOUND,
    NotFound: exits.NOT_FOUND,
    CommandRefused: exits.FAILED,
    CursorUnusable: exits.USAGE,
    DownloadError: exits.FAILED,
    SubmissionFailed: exits.FAILED,
}


def run(work: Callable[[], Coroutine[Any, Any, int]]) -> NoReturn:
    """Run `work` to its end and exit with the status it returns.

    SIGINT, SIGTERM and SIGHUP cancel it, so that everything it started is stopped in order.
    """
    for library in ("aio_pika", "aiormq"):  # a lost connection is told once, by us
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        status = asyncio.run(_cancelled_by_signals(work))
    except (KeyboardInterrupt, asyncio.CancelledError):
        status = exits.INTERRUPTED
    except BrokenPipeError:
        # whoever read our output has gone (`| head`); Python would complain once more while it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 128 + signal.SIGPIPE
    except ClientError as error:
        click.echo(f"leveret: {error}", err=True)
        status = _STATUS[type(error)]
    raise SystemExit(status)


async def _cancelled_by_signals(work: Callable[[], Coroutine[Any, Any, int]]) -> int:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    return await work()
