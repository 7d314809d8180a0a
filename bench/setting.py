"""What measures run against: one whole stack on loopback, durable as in earnest, started when the first one asks."""

import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType

from leveret_embedded.stack import Options, Stack

OWNER = "~bench"
#: The image that the stack's own worker pretends to have: its builds are processes of this machine.
PROCESS_IMAGE = "test/process"


class Bench:
    """`async with Bench() as bench`: when the block ends, nothing of it is left."""

    def __init__(self, scale_jobs: int) -> None:
        """`scale_jobs`: the backlog that bench/scale.py makes."""
        self.scale_jobs = scale_jobs
        self._stack: Stack | None = None
        self._open = AsyncExitStack()
        self.folder = Path()

    async def __aenter__(self) -> "Bench":
        await self._open.__aenter__()
        self.folder = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="leveret-bench-")))
        self.folder.chmod(0o711)  # the broker, the database and guests may have users of their own
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.__aexit__(kind, error, trace)

    async def stack(self) -> Stack:
        """Give the running stack, whose worker is ready."""
        if self._stack is None:
            options = Options(executor="process", slots=2)
            started = Stack.start(self.folder / "stack", owner=OWNER, options=options)
            self._stack = await self._open.enter_async_context(started)
            await self._stack.until_worker_ready()
        return self._stack
