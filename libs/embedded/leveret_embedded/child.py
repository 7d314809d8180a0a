"""A program run as a child that cannot outlive us: stopped with its block, or by the kernel if we are killed."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from leveret_embedded.notify import NotifySocket
from leveret_embedded.programs import Account

STOP_LIMIT = 20.0
_LOG_TAIL = 2000


class ProgramFailedError(RuntimeError):
    """A program of the stack did not start, or ended by itself; the message holds the end of its log."""

    def __init__(self, program: str, what: str, log: Path) -> None:
        with log.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _LOG_TAIL))
            tail = stream.read().decode(errors="replace").strip()
        super().__init__(f"{program} {what}; its log {log} ends with:\n{tail}")


class Child:
    """A running child process. Made by `start`; whoever made it calls `stop` or `kill`, whatever happens."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        name: str,
        log: Path,
        stop_signal: signal.Signals,
        notifications: NotifySocket,
    ) -> None:
        self._process = process
        self.name = name
        self.log = log
        self._stop_signal = stop_signal
        # Open for as long as the child lives: RabbitMQ cannot end in order when nobody hears its STOPPING=1.
        self._notifications = notifications

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    @classmethod
    async def start(
        cls,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log: Path,
        stop_signal: signal.Signals = signal.SIGTERM,
        account: Account | None = None,
        pass_fds: Sequence[int] = (),
    ) -> "Child":
        """Starts `argv` in a session of its own, so that the terminal's Ctrl-C reaches only us.

        `log` gets its output, appended. `stop_signal` is what asks it to end, and what the kernel sends it when the
        thread that called us ends. As root, `account` is whom to become. `pass_fds` stay open in it.
        """
        tie = ["setpriv", f"--pdeathsig={stop_signal.name[3:]}"]
        if account is not None:
            tie += [f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
        notifications = NotifySocket()
        try:
            with log.open("ab") as output:
                process = await asyncio.create_subprocess_exec(
                    *tie,
                    "--",
                    *argv,
                    env={**env, "NOTIFY_SOCKET": notifications.address},
                    cwd=cwd,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    pass_fds=pass_fds,
                )
        except BaseException:
            notifications.close()
            raise
        return cls(process, Path(argv[0]).name, log, stop_signal, notifications)

    async def until_ready(self, limit: float) -> None:
        """Waits for the child's READY=1, at most `limit` seconds. Raises ProgramFailedError when it does not come."""
        async with asyncio.TaskGroup() as group:
            ended = group.create_task(self._process.wait())
            ready = group.create_task(self._notifications.ready())
            await asyncio.wait({ended, ready}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            is_ready = ready.done()
            ended.cancel()
            ready.cancel()
        if not self.running:
            raise ProgramFailedError(self.name, f"ended with status {self._process.returncode}", self.log)
        if not is_ready:
            raise ProgramFailedError(self.name, f"was not ready after {limit:.0f} s", self.log)

    async def wait(self) -> int:
        """Waits, without a limit, until the child has ended. Returns its exit status, negative for a signal."""
        status = await self._process.wait()
        self._notifications.close()
        return status

    async def stop(self) -> None:
        """Asks the child to end; kills it after STOP_LIMIT seconds, or at once if we are cancelled meanwhile."""
        try:
            if self.running:
                self._process.send_signal(self._stop_signal)
            async with asyncio.timeout(STOP_LIMIT):
                await self.wait()
        except TimeoutError:
            await self.kill()
        finally:
            if self.running:
                self._process.kill()

    async def kill(self) -> None:
        """SIGKILL; returns when the child is gone."""
        if self.running:
            self._process.kill()
        await self.wait()


@asynccontextmanager
async def running_child(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    cwd: Path,
    log: Path,
    account: Account | None = None,
    pass_fds: Sequence[int] = (),
) -> AsyncIterator[Child]:
    """A child for the length of the block; the arguments are those of `Child.start`."""
    child = await Child.start(argv, env=env, cwd=cwd, log=log, account=account, pass_fds=pass_fds)
    try:
        yield child
    finally:
        await child.stop()


async def run_to_end(
    argv: Sequence[str | Path],
    *,
    limit: float,
    env: Mapping[str, str],
    cwd: Path,
    log: Path,
    account: Account | None,
    pass_fds: Sequence[int],
) -> None:
    """Runs a program that ends by itself. Raises ProgramFailedError on a bad exit status or after `limit` seconds."""
    async with running_child(argv, env=env, cwd=cwd, log=log, account=account, pass_fds=pass_fds) as child:
        try:
            async with asyncio.timeout(limit):
                status = await child.wait()
        except TimeoutError:
            raise ProgramFailedError(child.name, f"had not ended after {limit:.0f} s", log) from None
    if status != 0:
        raise ProgramFailedError(child.name, f"ended with status {status}", log)
