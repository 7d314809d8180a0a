"""The templates of a host: recorded on first use or ahead of it, verified, thrown away; see template_files.py.

A process loads a template once, verifying all of it, and has its memory in a file that nobody can change; the disk is
looked at again each time.
"""

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from pathlib import Path
from uuid import uuid4

import structlog

from leveret_worker.qemu.errors import MachineError
from leveret_worker.qemu.origin import Origin
from leveret_worker.qemu.template import RecordedFiles, Template
from leveret_worker.qemu.template_files import (
    LoadedTemplate,
    Manifest,
    recording,
    remove,
    same,
    sweep,
    wanted,
    write_manifest,
)

log = structlog.get_logger(__name__)

TRIES = 3
"""Times that a template may fail until machines of its kind are booted, up to the next `sweep`."""

Recorder = Callable[[Path], Awaitable[RecordedFiles]]
"""Records a machine into files of an empty directory; raises MachineError."""


class Templates:
    """The templates in a directory, as one worker uses them. Close it when no machine is being restored any more."""

    def __init__(self, root: Path, *, disk_limit: int, memory_limit: int) -> None:
        """`root`: made when needed. `disk_limit`: bytes of all that are kept; `memory_limit`: of loaded unused ones."""
        self.root = root
        self._disk_limit = disk_limit
        self._memory_limit = memory_limit
        self._loaded: dict[str, LoadedTemplate] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._failures: dict[str, int] = {}

    @contextlib.asynccontextmanager
    async def using(self, origin: Origin, recorder: Recorder) -> AsyncIterator[Template | None]:
        """The template of that origin, which stays as long as the context; made with `recorder` if there is none yet.

        None where there is none to be had: its recording failed, or another is being recorded right now.
        """
        loaded = await self._obtain(origin, recorder)
        if loaded is None:
            yield None
            return
        loaded.users += 1
        try:
            yield loaded.template
        finally:
            loaded.left()
            if not loaded.users and self._loaded.get(loaded.key) is not loaded:
                loaded.close()
            self._trim()

    async def prepare(self, origin: Origin, recorder: Recorder) -> None:
        """See to it that there is a template of that origin, if there can be, without keeping it loaded."""
        if await asyncio.to_thread((self.root / origin.key).exists):
            return
        loaded = await self._obtain(origin, recorder)
        if loaded is not None and not loaded.users:
            self._let_go(loaded.key)

    async def discard(self, origin: Origin, why: str) -> None:
        """Throw the template away: a machine could not go on from it."""
        key = origin.key
        self._failed(key)
        log.warning("template thrown away", key=key[:12], image=origin.image[:12], reason=why)
        loaded = self._loaded.get(key)
        ours = loaded is None or same(self.root / key, loaded.lock)  # else another process has made a new one
        self._let_go(key)
        if ours:
            await asyncio.to_thread(remove, self.root / key)

    def succeeded(self, origin: Origin) -> None:
        """A machine went on from it."""
        self._failures.pop(origin.key, None)

    async def sweep(self, images: Collection[str]) -> None:
        """Remove what is of no use: templates of images that are not in `images` (digests), broken ones, those unused
        for long, the longest unused over the limit, and leftovers. Those that were given up get another chance."""
        self._failures.clear()
        for key, loaded in list(self._loaded.items()):
            if not loaded.users and not await asyncio.to_thread(wanted, self.root / key, images):
                self._let_go(key)
        await asyncio.to_thread(sweep, self.root, images, self._disk_limit)

    def close(self) -> None:
        """Let go of everything loaded."""
        for key in list(self._loaded):
            self._let_go(key)

    async def _obtain(self, origin: Origin, recorder: Recorder) -> LoadedTemplate | None:
        key = origin.key
        async with self._turns.setdefault(key, asyncio.Lock()):
            if self._given_up(key):
                return None
            loaded = self._loaded.get(key)
            if loaded is not None and loaded.changed:
                await self.discard(origin, "its disk was changed")
                loaded = None
            try:
                loaded = loaded or await self._load(origin) or await self._make(origin, recorder)
            except (MachineError, OSError) as error:
                self._failed(key)
                log.warning("no template could be recorded", image=origin.image[:12], reason=str(error))
            return loaded

    async def _load(self, origin: Origin) -> LoadedTemplate | None:
        """Load the template from the directory, if it is there and good."""
        directory = self.root / origin.key
        try:
            loaded = await _in_thread(lambda: LoadedTemplate.from_directory(directory, origin))
        except FileNotFoundError:
            return None
        except (MachineError, OSError) as error:
            await self.discard(origin, str(error))
            return None
        self._loaded[origin.key] = loaded
        return loaded

    async def _make(self, origin: Origin, recorder: Recorder) -> LoadedTemplate | None:
        """Record the template, unless another is being recorded."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with recording(self.root) as alone:
            if not alone:
                return None
            work = self.root / f"work-{uuid4().hex}"
            work.mkdir(mode=0o700)
            try:
                began = time.monotonic()
                files = await recorder(work)
                write_manifest(work, Manifest(origin=origin, files=files))
                os.rename(work, self.root / origin.key)
                seconds = round(time.monotonic() - began, 1)
                log.info("template recorded", key=origin.key[:12], image=origin.image[:12], seconds=seconds)
            finally:
                await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
        return await self._load(origin)

    def _given_up(self, key: str) -> bool:
        return self._failures.get(key, 0) >= TRIES

    def _failed(self, key: str) -> None:
        self._failures[key] = self._failures.get(key, 0) + 1

    def _let_go(self, key: str) -> None:
        """Forget a loaded template; it is closed now, or by its last user."""
        loaded = self._loaded.pop(key, None)
        if loaded is not None and not loaded.users:
            loaded.close()

    def _trim(self) -> None:
        """Let go of the longest unused over the limit."""
        unused = sorted((one for one in self._loaded.values() if not one.users), key=lambda one: one.used)
        excess = sum(one.size for one in unused) - self._memory_limit
        for one in unused:
            if excess <= 0:
                break
            excess -= one.size
            self._let_go(one.key)


async def _in_thread(make: Callable[[], LoadedTemplate]) -> LoadedTemplate:
    """Call `make` in a thread; what it makes is closed if nobody waits for it any more."""
    made = asyncio.get_running_loop().run_in_executor(None, make)
    try:
        return await asyncio.shield(made)
    except asyncio.CancelledError:
        made.add_done_callback(_close)
        raise


def _close(made: asyncio.Future[LoadedTemplate]) -> None:
    if made.exception() is None:
        made.result().close()
