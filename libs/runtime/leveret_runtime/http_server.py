"""An HTTP server for the time of a block."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError


def _ours(record: logging.LogRecord) -> bool:
    """Whether a record tells of a fault of ours: who sends what is no HTTP has had a 400, and fills no log."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


#: The library's own word on a request.
_requests = logging.getLogger(__name__)
_requests.addFilter(_ours)


@asynccontextmanager
async def serving(app: web.Application, host: str, port: int, *, who: str, patience: float) -> AsyncIterator[str]:
    """Serve `app`; the block is given the URL. A request whose reader has gone is cancelled.

    Args:
        port: 0 takes a free one.
        who: listens, in words, for the error.
        patience: seconds that requests under way get at the end of the block.

    Raises:
        SystemExit: the address can't be listened on; says so on standard error.
    """
    runner = web.AppRunner(app, access_log=None, logger=_requests, shutdown_timeout=patience, handler_cancellation=True)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise SystemExit(f"{who}: can't listen on {host} port {port}: {error.strerror}") from None
        yield f"http://{f'[{host}]' if ':' in host else host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
