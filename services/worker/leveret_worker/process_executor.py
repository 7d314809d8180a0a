"""The `process` executor: the same agent as a child process. No isolation whatever; for tests and development."""

import platform
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from leveret_guestapi import GuestClient, agent_digest, local_agent
from leveret_proto.capability import Capabilities, ImageOffer, requirement
from leveret_proto.manifest.sources import KNOWN_SCM
from leveret_proto.messages import Grant
from leveret_worker.config import Config
from leveret_worker.guests import Guest, Profile, check

_PREAMBLE = """\
#!/usr/bin/env bash
. ~/.buildenv
set -xe
"""


class ProcessExecutor:
    """Pretends to have the configured images; every one of them is this host itself."""

    notes: tuple[str, ...] = ("no isolation: builds run as processes of this host",)

    def __init__(self, config: Config) -> None:
        self._config = config

    def offer(self) -> Capabilities:
        arch = platform.machine()
        digest = agent_digest()
        images = tuple(ImageOffer(arch=arch, name=name, digest=digest) for name in self._config.process_images)
        return self._config.allowed.model_copy(update={"images": images})

    async def prove(self, changed: Callable[[], None]) -> None:
        """There is nothing to prove."""

    def prove_soon(self) -> None:
        """There is nothing to prove."""

    @asynccontextmanager
    async def guest(self, grant: Grant, folder: Path) -> AsyncIterator[Guest]:
        manifest = grant.manifest
        check(requirement(manifest, manifest.arch or platform.machine(), manifest.image), self.offer())
        home = folder / "home"
        home.mkdir()
        config = self._config
        async with (
            local_agent() as socket,
            GuestClient.connect(
                socket,
                hello_timeout=config.boot_limit,
                operation_limit=config.guest_answer_limit,
                beat_interval=config.guest_silence_limit / 6,
                beat_limit=config.guest_silence_limit,
            ) as api,
        ):
            profile = Profile(
                user=None,
                home=str(home),
                preamble=_PREAMBLE,
                environment={"HOME": str(home)},
                version_control=tuple(scm for scm in KNOWN_SCM if shutil.which(scm)),
            )
            yield Guest(api, profile, "process on this host, without isolation", "process")
