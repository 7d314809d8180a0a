"""The monitor: metrics for Prometheus and the probes of whoever watches the process, on an HTTP port of their own.

    /metrics    counts and times (metrics.py)
    /live       200 for as long as the event loop turns; a process that does not answer is to be killed
    /ready      200 while connected and working, else 503; the body says what is waited for (health.py)

It tells nothing of owners, jobs or secrets, and takes no orders. Still it is meant for a loopback address or a network
of the operator's own, as all monitoring is.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from aiohttp import web

from leveret_runtime import metrics
from leveret_runtime.health import Health
from leveret_runtime.http_server import serving

log = structlog.get_logger(__name__)

#: Seconds that requests under way get when the service stops.
SHUTDOWN_LIMIT = 1.0


@asynccontextmanager
async def monitoring(service: str, health: Health, host: str, port: int) -> AsyncIterator[str]:
    """Serve metrics and probes for the time of the block, which is given the URL; `port` 0 takes a free one.

    Raises:
        SystemExit: the address can't be listened on; says so on standard error.
    """
    app = web.Application()
    pages = Pages(health)
    app.router.add_get("/metrics", pages.metrics)
    app.router.add_get("/live", pages.live)
    app.router.add_get("/ready", pages.ready)
    async with serving(app, host, port, who=f"leveret-{service}: monitor_port", patience=SHUTDOWN_LIMIT) as url:
        log.info("monitor", url=url)
        yield url


class Pages:
    """The handlers."""

    def __init__(self, health: Health) -> None:
        self._health = health
        #: One look at a time, so that many who look cost the database no more than one.
        self._turn = asyncio.Lock()

    async def metrics(self, request: web.Request) -> web.Response:
        async with self._turn:
            body, content_type = await metrics.page(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def live(self, _: web.Request) -> web.Response:
        return web.Response(text="live\n")

    async def ready(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self._health.ready else 503, text=f"{self._health.told}\n")
