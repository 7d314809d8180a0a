"""What the private servers have in common: one child process that is started, crashed, restarted and waited for."""

from typing import ClassVar

from leveret_embedded.child import Child


class Server:
    """A server as a child process. Whoever derives from it says how it starts."""

    #: What to call it in an error.
    KIND: ClassVar[str]

    _child: Child | None = None

    @property
    def pid(self) -> int:
        """Process id of the server itself. Raises RuntimeError before it was started."""
        return self._started().pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    async def start(self) -> None:
        """Starts the server; returns when it takes connections. Raises ProgramFailedError."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Ends it in order; nothing happens where it does not run."""
        if self._child is not None:
            await self._child.stop()

    async def restart(self) -> None:
        """Starts it again on the same ports and data, after an orderly stop if it still runs."""
        await self.stop()
        await self.start()

    async def wait(self) -> int:
        """Waits, without a limit, until the server has ended; returns its exit status."""
        return await self._started().wait()

    def _started(self) -> Child:
        if self._child is None:
            raise RuntimeError(f"the {self.KIND} was not started")
        return self._child
