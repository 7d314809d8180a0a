"""One attempt on this worker: from the spooled grant to the settled result, whatever happens between.

The build itself is in `build.py`. Around it stand the time limit, cancelling, and the couriers that bring logs,
artifacts and status to the broker and outlive its absences.
"""

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import PurePosixPath

import structlog

from leveret_guestapi import GuestApiError
from leveret_proto.messages import Grant, HeldGrant, JobStatus, LogDigest, Reason, TaskState
from leveret_runtime.failpoints import failpoint
from leveret_runtime.sealing import KeyPair
from leveret_worker.announcer import Announcer
from leveret_worker.artifacts import SpooledArtifact
from leveret_worker.backlog import Backlog
from leveret_worker.build import Build
from leveret_worker.config import Config
from leveret_worker.couriers import artifact_sender, log_sender
from leveret_worker.guest_secrets import opened
from leveret_worker.guests import Executor, Guest, Withdrawn
from leveret_worker.limits import TimeLimits, shorter
from leveret_worker.log_limit import JobLimit, LogLimit
from leveret_worker.logs import SpooledLog
from leveret_worker.masked_output import MaskedOutput
from leveret_worker.masking import Mask
from leveret_worker.metrics import BOOT_SECONDS, BUILDS_ENDED, SETTLE_SECONDS
from leveret_worker.mirror import Mirror
from leveret_worker.outcome import Outcome, lost
from leveret_worker.outlet import Outlet
from leveret_worker.snapshot import Snapshot
from leveret_worker.spool import GrantSpool

log = structlog.get_logger(__name__)


class Attempt:
    """A grant that this worker holds, until it is settled or abandoned."""

    def __init__(
        self, grant: Grant, spool: GrantSpool, config: Config, control: Outlet, bulk: Outlet, keys: KeyPair
    ) -> None:
        """`keys`: what the grant's secrets are sealed to."""
        self.grant = grant
        self.announcer = Announcer(control)
        self._spool = spool
        self._config = config
        self._bulk = bulk
        self._keys = keys
        self._snapshot = Snapshot(grant)
        #: Made before the guest can say anything.
        self._mask = Mask(())
        self._stop: Outcome | None = None
        self._build: asyncio.Task[Outcome] | None = None
        self._couriers = asyncio.TaskGroup()
        self._backlog = Backlog(config.backlog_limit)
        self._log_limit = JobLimit(grant.job_log_limit)
        self._artifacts: list[SpooledArtifact] = []
        #: Set when there is nothing left to build.
        self.over = asyncio.Event()

    def held(self) -> HeldGrant:
        """What a beat says of this grant."""
        return self._snapshot.held()

    def digests(self) -> tuple[LogDigest, ...]:
        """Give the ends of the logs that are whole."""
        return tuple(self._snapshot.logs)

    @property
    def unconfirmed(self) -> int:
        """Bytes of its logs and artifacts that the broker has not taken yet."""
        return self._backlog.waiting

    def stop(self, outcome: Outcome) -> None:
        """End the build with `outcome`, unless it has ended by itself."""
        if self._stop is None:
            self._stop = outcome
            if self._build is not None:
                self._build.cancel()

    async def run(self, executor: Executor, mirror: Mirror, on_slot_free: Callable[[], None]) -> None:
        """Build, deliver logs, artifacts and the result, and return when the result is settled.

        Cancelled, it stops the machine and says nothing more.
        """
        arrived = time.monotonic()
        async with self._couriers:
            self._couriers.create_task(self.announcer.run())
            try:
                outcome = await self._conduct(executor, mirror, arrived)
            finally:
                self.over.set()
                on_slot_free()
            ended = time.monotonic()
            await self._deliver_artifacts()
            self._end(outcome, time.monotonic() - arrived)
        if outcome.result is not None:
            SETTLE_SECONDS.labels(self.grant.manifest.image).observe(time.monotonic() - ended)

    async def _conduct(self, executor: Executor, mirror: Mirror, arrived: float) -> Outcome:
        """Run the build as a task of its own, so that it can be stopped without stopping the couriers."""
        self._build = self._couriers.create_task(self._run_build(executor, mirror, arrived))
        if self._stop is not None:  # stopped before it began
            self._build.cancel()
        limits = self._limits(arrived)
        try:
            _, still_running = await asyncio.wait({self._build}, timeout=limits.patience)
            if still_running:
                self.stop(limits.for_setup(time.monotonic()).used_up(None))
                await asyncio.wait({self._build})
        except asyncio.CancelledError:
            self._build.cancel()
            await asyncio.wait({self._build})
            raise
        if self._build.cancelled():
            return self._stop or Outcome(None, Reason.HANDED_BACK)
        return self._build.result()

    def _limits(self, arrived: float) -> TimeLimits:
        config = self._config
        asked = self.grant.manifest.leveret.task_time_limit
        task = shorter(asked, config.task_time_limit, config.task_time_limit_most)
        return TimeLimits(arrived, self.grant.time_limit, task, config.kill_after)

    async def _run_build(self, executor: Executor, mirror: Mirror, arrived: float) -> Outcome:
        folder = self._spool.guest
        folder.mkdir(mode=0o711)
        booted = False
        try:
            self._mask = await asyncio.to_thread(Mask, opened(self.grant.secrets, self._keys))
            async with executor.guest(self.grant, folder) as guest:
                booted = True
                seconds = time.monotonic() - arrived
                manifest = self.grant.manifest
                BOOT_SECONDS.labels(manifest.image, manifest.arch or "", guest.how).observe(seconds)
                self._snapshot.started(seconds)
                self._say()
                failpoint("worker.build.started")
                url, limits = self._config.job_url, self._limits(arrived)
                return await Build(guest, self.grant, self, mirror, url, self._keys, limits).run()
        except Withdrawn as error:
            return Outcome(None, Reason.HANDED_BACK, str(error))
        except GuestApiError as error:
            return lost(error, booted=booted)
        except Exception as error:
            log.exception("worker fault", job=self.grant.facts.job)
            return Outcome(JobStatus.FAILED, Reason.WORKER_FAULT, f"{type(error).__name__}: {error}")
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    # --- what the build reports (build.Reporter) ---

    def setup_done(self, seconds: float) -> None:
        self._snapshot.timed(setup=seconds)
        self._say()

    def task(self, index: int, state: TaskState, exit_status: int | None, seconds: float | None) -> None:
        self._snapshot.task(index, state, exit_status, seconds)
        self._say()
        failpoint("worker.task.moved")

    def open_log(self, name: str) -> MaskedOutput:
        """Begin a log and its courier."""
        limit, path = LogLimit(self.grant.log_limit, self._log_limit), self._spool.log_path(name)
        spooled = SpooledLog(path, self.grant.grant, name, limit=limit, backlog=self._backlog)
        self._couriers.create_task(spooled.deliver(log_sender(self._bulk, self.grant, name)))
        return MaskedOutput(spooled, self._mask)

    def close_log(self, log: MaskedOutput) -> None:
        log.finish()
        self._snapshot.logs.append(log.digest())

    async def keep_artifact(self, index: int, path: str, guest: Guest) -> None:
        """Stream `path` out of the guest; its courier may be at it for longer."""
        data = guest.api.read_file(str(PurePosixPath(guest.profile.home) / path), self.grant.artifact_limit)
        artifact = SpooledArtifact(self._spool.artifacts, self.grant.grant, index, path, backlog=self._backlog)
        self._couriers.create_task(artifact.deliver(artifact_sender(self._bulk, self.grant)))
        self._artifacts.append(artifact)
        await artifact.keep(data)

    # --- the end ---

    async def _deliver_artifacts(self) -> None:
        """Artifacts are confirmed before the result is sent."""
        started = time.monotonic()
        for artifact in self._artifacts:
            if (delivered := await artifact.delivered()) is not None:
                self._snapshot.artifacts.append(delivered)
        if self._artifacts:
            self._snapshot.timed(artifacts=time.monotonic() - started)

    def _end(self, outcome: Outcome, total: float) -> None:
        self._snapshot.timed(total=total)
        detail = None if outcome.detail is None else self._mask.text(outcome.detail)
        self._snapshot.ended(outcome.result, outcome.reason, detail)
        try:
            self._spool.write_status(self._snapshot.message())
        except OSError as error:  # it is told from memory all the same; only a crash right now would lose it
            log.error("the spool can't take a result", job=self.grant.facts.job, reason=str(error))
        failpoint("worker.result.spooled")
        self._say()
        BUILDS_ENDED.labels(outcome.result or "handed-back", outcome.reason).inc()
        log.info("ended", job=self.grant.facts.job, result=outcome.result, reason=outcome.reason)

    def _say(self) -> None:
        self.announcer.say(self._snapshot.message())
