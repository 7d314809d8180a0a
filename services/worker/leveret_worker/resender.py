"""Sends parts of logs again that logsink has lost, one request after the other."""

import asyncio
import os

import structlog

from leveret_proto.messages import LogDigest, MissingRange, Resend
from leveret_worker.couriers import log_sender
from leveret_worker.kept import Kept, KeptLogs
from leveret_worker.logs import CHUNK, log_chunk
from leveret_worker.outlet import Outlet
from leveret_worker.spooled import End

log = structlog.get_logger(__name__)

#: Requests that wait. Those past it are let go: logsink asks again.
WAITING = 1000
#: Seconds between looks for kept logs that have grown too old.
SWEEP = 60.0


class Resender:
    """Answers to requests."""

    def __init__(self, kept: KeptLogs, bulk: Outlet) -> None:
        self._kept = kept
        self._bulk = bulk
        self._wanted: asyncio.Queue[Resend] = asyncio.Queue(WAITING)

    def ask(self, wanted: Resend) -> None:
        """Send `wanted` when its turn comes, as far as it is there."""
        if not self._wanted.full():
            self._wanted.put_nowait(wanted)

    async def run(self) -> None:
        """Serve requests until cancelled."""
        while True:
            try:
                async with asyncio.timeout(SWEEP):
                    wanted = await self._wanted.get()
            except TimeoutError:
                self._kept.sweep()
            else:
                await self._serve(wanted)

    async def _serve(self, wanted: Resend) -> None:
        kept = self._kept.find(wanted.job, wanted.attempt)
        told = {"job": wanted.job, "attempt": wanted.attempt, "task": wanted.task}
        try:
            sent = 0 if kept is None else await self._send(kept, wanted)
        except OSError as error:
            log.warning("asked to send a log again that can't be read", **told, reason=error.strerror)
        else:
            log.info("sent again", **told, bytes=sent)

    async def _send(self, kept: Kept, wanted: Resend) -> int:
        if wanted.task not in kept.spool.log_names():  # a name from outside never becomes a path
            return 0
        digests: dict[str, LogDigest] = {digest.task: digest for digest in kept.digests()}
        digest = digests.get(wanted.task)
        send = log_sender(self._bulk, kept.grant, wanted.task)
        sent = 0
        fd = os.open(kept.spool.log_path(wanted.task), os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            for start, end in within(wanted.missing, size):
                for offset in range(start, end, CHUNK):
                    if self._kept.find(wanted.job, wanted.attempt) is None:
                        return sent  # the grant has become void
                    data = await asyncio.to_thread(os.pread, fd, min(CHUNK, end - offset), offset)
                    await send(log_chunk(kept.grant.grant, offset, None), data)
                    sent += len(data)
        finally:
            os.close(fd)
        if digest is not None:
            await send(log_chunk(kept.grant.grant, digest.bytes, End(digest.bytes, digest.sha256)), b"")
        return sent


def within(missing: tuple[MissingRange, ...], size: int) -> list[tuple[int, int]]:
    """Give the parts (start, end) of `missing` that lie in a log of `size` bytes, in order and each byte once."""
    parts = []
    reached = 0
    for one in sorted(missing, key=lambda one: one.start):
        start, end = max(one.start, reached), size if one.end is None else min(one.end, size)
        if start < end:
            parts.append((start, end))
            reached = end
    return parts
