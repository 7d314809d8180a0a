"""Running a build's commands in its guest: their output goes to a log, their time is limited."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leveret_guestapi import ExitStatus, GuestError, GuestGone
from leveret_proto.messages import Reason
from leveret_worker.guests import Guest
from leveret_worker.limits import Allowance, TimeLimits
from leveret_worker.masked_output import MaskedOutput
from leveret_worker.outcome import BuildFailed, failed

#: Rows and columns of a task's terminal.
TERMINAL = (24, 80)
#: A program that sees a terminal may want a pager, and a pager a person.
_UNATTENDED: Mapping[str, str] = {"PAGER": "cat"}


@dataclass(frozen=True)
class Commands:
    """The commands of one build, run in the build user's home."""

    guest: Guest
    limits: TimeLimits

    async def set_up(self, log: MaskedOutput, what: str, words: Sequence[str], *, user: str | None = None) -> None:
        """Run a command before the first task, as `user` or else as root; `what` it does, in words.

        Both outputs are one pipe, so that their order stays.

        Raises:
            BuildFailed: it did not succeed, or the job's time is over.
        """
        allowance = self.limits.for_setup(time.monotonic())
        joined = ["/bin/sh", "-c", 'exec "$@" 2>&1', "run", *words]
        try:
            status = await self._run(log, joined, user, allowance)
        except (GuestError, ValueError) as error:  # it can't be started, or its words can't be passed on
            raise failed(Reason.SETUP_FAILED, f"{what}: {error}") from error
        if status.timed_out:
            raise BuildFailed(allowance.used_up(status))
        if not status.success:
            raise failed(Reason.SETUP_FAILED, f"{what}: {status}")

    async def task(self, log: MaskedOutput, name: str) -> tuple[ExitStatus, Allowance]:
        """Run a task's script as the build user. Gives how it ended, and what time it had.

        It has a terminal to write to, and nobody to ask: its input is empty, and it has no controlling terminal.

        Raises:
            BuildFailed: the guest did not end it at its limit.
            GuestError: it can't be started.
        """
        allowance = self.limits.for_task(time.monotonic(), name)
        status = await self._run(log, [f"./.tasks/{name}"], self.guest.profile.user, allowance, terminal=TERMINAL)
        return status, allowance

    async def _run(
        self,
        log: MaskedOutput,
        words: Sequence[str],
        user: str | None,
        allowance: Allowance,
        terminal: tuple[int, int] | None = None,
    ) -> ExitStatus:
        profile = self.guest.profile
        process = self.guest.api.exec(
            words, env={**_UNATTENDED, **profile.environment}, user=user, cwd=profile.home, pty=terminal,
            time_limit=allowance.seconds, kill_after=allowance.grace,
        )  # fmt: skip
        try:
            async with asyncio.timeout(allowance.patience), process:
                async for _, data in process.output():
                    await log.append(data)
                return await process.wait()
        except TimeoutError:
            ended = allowance.used_up(None)
            self.guest.api.lose(GuestGone(ended.detail))
            raise BuildFailed(ended) from None
