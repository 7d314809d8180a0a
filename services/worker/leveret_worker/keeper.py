"""Keeping templates ready: those of proved images are recorded before a job asks, those of no use are removed."""

import asyncio

import structlog

from leveret_runtime.waits import pause
from leveret_worker.images import ImageError, ImageStore
from leveret_worker.prover import Prover
from leveret_worker.qemu import MachineError, Templates
from leveret_worker.starting import Starter

log = structlog.get_logger(__name__)


class Keeper:
    """Looks after the templates of one worker, one at a time, behind everything else on the host."""

    def __init__(
        self,
        store: ImageStore,
        prover: Prover,
        starter: Starter,
        templates: Templates,
        *,
        ahead: bool,
        interval: float,
    ) -> None:
        """`ahead`: whether templates are recorded before a job asks. `interval`: seconds between looks."""
        self._store = store
        self._prover = prover
        self._starter = starter
        self._templates = templates
        self._ahead = ahead
        self._interval = interval
        self._news = asyncio.Event()

    def look(self) -> None:
        """Something else is proved now."""
        self._news.set()

    async def run(self) -> None:
        """Look now, when told to, and at every interval; until cancelled."""
        while True:
            self._news.clear()
            await self._round()
            await pause(self._interval, self._news)

    async def _round(self) -> None:
        images = await asyncio.to_thread(self._store.images)
        try:
            await self._templates.sweep({image.digest for image in images})
        except OSError as error:
            log.warning("templates can't be looked through", reason=str(error))
        for image in self._prover.proved if self._ahead else ():
            try:
                with self._store.using(image):
                    await self._starter.record_ahead(image, self._prover.accelerator(image.manifest.architecture))
            except (ImageError, MachineError, OSError) as error:
                log.warning("no template can be recorded", image=image.manifest.name, reason=str(error))
