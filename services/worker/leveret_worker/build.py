"""A build from its first line to its last. Read `Build.run` to know what happens in which order.

The order, the files in the guest and what ends a build are builds.sr.ht's; `docs/manifest.md` says what the guest sees.
"""

import time
from dataclasses import dataclass
from typing import Protocol

from leveret_guestapi import GuestError
from leveret_proto.manifest import Manifest, Task
from leveret_proto.messages import SETUP_LOG, Grant, JobStatus, Reason, TaskState
from leveret_runtime.sealing import KeyPair
from leveret_worker.commands import Commands
from leveret_worker.guest_secrets import SecretNotPlaced, called, place
from leveret_worker.guests import Guest
from leveret_worker.limits import TimeLimits
from leveret_worker.masked_output import MaskedOutput
from leveret_worker.mirror import Mirror
from leveret_worker.outcome import COMPLETED, BuildFailed, Outcome, failed
from leveret_worker.scripts import COMPLETE_BUILD, MARK, buildenv, task_script
from leveret_worker.sources import clone


class Reporter(Protocol):
    """Where a build says how far it is. The attempt makes status snapshots of it."""

    def setup_done(self, seconds: float) -> None: ...

    def task(self, index: int, state: TaskState, exit_status: int | None, seconds: float | None) -> None: ...

    def open_log(self, name: str) -> MaskedOutput: ...

    def close_log(self, log: MaskedOutput) -> None: ...

    async def keep_artifact(self, index: int, path: str, guest: Guest) -> None:
        """Read `path` out of the guest. Raises GuestError, ValueError (no path at all)."""


@dataclass(frozen=True)
class Build:
    """One build: the guest it runs in, what to run, how long, and where to report."""

    guest: Guest
    grant: Grant
    report: Reporter
    mirror: Mirror
    job_url: str
    #: What the grant's secrets are sealed to.
    keys: KeyPair
    limits: TimeLimits

    @property
    def manifest(self) -> Manifest:
        return self.grant.manifest

    @property
    def commands(self) -> Commands:
        return Commands(self.guest, self.limits)

    async def run(self) -> Outcome:
        """The whole build, in a fresh guest that answers (executors see to that).

        Raises GuestApiError where contact with it is lost.
        """
        started = time.monotonic()
        setup = self.report.open_log(SETUP_LOG)
        try:
            await setup.say(f"job {self.grant.facts.job}, attempt {self.grant.attempt}: {self.guest.about}")
            await self._write_tasks()
            await self._write_environment()
            await self._place_secrets(setup)
            await self._add_repositories(setup)
            await self._install_packages(setup)
            await self._clone_sources(setup)
        except (BuildFailed, GuestError) as error:
            outcome = _outcome(error)
            await setup.say(f"setup failed: {outcome.detail}")
            return outcome
        finally:
            self.report.close_log(setup)
        self.report.setup_done(time.monotonic() - started)

        outcome = COMPLETED
        try:
            await self._run_tasks()
        except BuildFailed as error:
            outcome = error.outcome
        try:
            if self._wants_artifacts(outcome):
                await self._keep_artifacts()
        except BuildFailed as error:
            if outcome.result is JobStatus.SUCCESS:
                outcome = error.outcome
        return outcome

    # --- before the first task ---

    async def _write_tasks(self) -> None:
        for task in self.manifest.tasks:
            await self._write(f".tasks/{task.name}", task_script(self.guest.profile.preamble, task.script))

    async def _write_environment(self) -> None:
        facts = self.grant.facts
        builtin = {
            "CI_NAME": "leveret",
            "JOB_ID": str(facts.job),
            "JOB_URL": self.job_url.format(owner=facts.owner, job=facts.job),
        }
        await self._write(".buildenv", buildenv(self.manifest.environment, builtin))

    async def _write(self, name: str, text: str) -> None:
        profile = self.guest.profile
        await self.guest.api.write_file(f"{profile.home}/{name}", text.encode(), mode=0o755, user=profile.user)

    async def _place_secrets(self, log: MaskedOutput) -> None:
        """Hand over what the dispatcher sealed for us. The first SSH key becomes the identity."""
        identity = next((secret for secret in self.grant.secrets if secret.kind == "ssh-key"), None)
        for secret in self.grant.secrets:
            await log.say(f"handing over secret {called(secret)} ({secret.kind})")
            try:
                await place(self.guest, secret, self.keys, identity=secret is identity)
            except SecretNotPlaced as error:
                raise failed(Reason.SETUP_FAILED, str(error)) from None

    async def _add_repositories(self, log: MaskedOutput) -> None:
        script = self.guest.profile.add_repository
        for name, value in self.manifest.repositories.items():
            if script is None:
                raise failed(Reason.SETUP_FAILED, f"repository {name}: this kind of guest can add none")
            await log.say(f"adding repository {name}")
            words = ["/bin/sh", "-euc", script, "add-repository", name, value]
            await self.commands.set_up(log, f"adding repository {name}", words)

    async def _install_packages(self, log: MaskedOutput) -> None:
        packages, script = self.manifest.packages, self.guest.profile.install_packages
        if not packages:
            return
        if script is None:
            raise failed(Reason.SETUP_FAILED, "packages: this kind of guest can install none")
        await log.say(f"installing {', '.join(packages)}")
        words = ["/bin/sh", "-euc", script, "install-packages", *packages]
        await self.commands.set_up(log, "installing packages", words)

    async def _clone_sources(self, log: MaskedOutput) -> None:
        for source in self.manifest.sources:
            await clone(self.commands, log, source, self.mirror)

    # --- the tasks ---

    async def _run_tasks(self) -> None:
        """Run the tasks in order, until one has called `complete-build`. Raises BuildFailed with the first that fails.

        Tasks that are never run are skipped, and said to be at the build's end.
        """
        for index, task in enumerate(self.manifest.tasks):
            await self._run_task(index, task)
            if await self._is_complete():
                return

    async def _run_task(self, index: int, task: Task) -> None:
        started = time.monotonic()
        self.report.task(index, TaskState.RUNNING, None, None)
        log = self.report.open_log(task.name)
        try:
            status, allowance = await self.commands.task(log, task.name)
            if status.timed_out:
                await log.say(allowance.used_up(status).detail or "")
        except GuestError as error:  # a task before it has removed its script, or the home directory
            await log.say(f"this task can't be started: {error}")
            raise failed(Reason.TASK_FAILED, f"task {task.name} can't be started: {error}") from error
        finally:
            self.report.close_log(log)
        code = status.code if status.code is not None else 128 + (status.signal or 0)
        state = TaskState.SUCCESS if status.success else TaskState.FAILED
        self.report.task(index, state, code, time.monotonic() - started)
        if status.timed_out:
            raise BuildFailed(allowance.used_up(status))
        if not status.success:
            raise failed(Reason.TASK_FAILED, f"task {task.name} ended with exit status {code}")

    async def _is_complete(self) -> bool:
        """Whether a task has called `complete-build`."""
        path = f"{self.guest.profile.home}/{COMPLETE_BUILD}"
        try:
            pieces = [piece async for piece in self.guest.api.read_file(path, limit=16)]
        except GuestError:  # there is none, or it is not what `complete-build` leaves
            return False
        return b"".join(pieces).strip() == MARK

    # --- the artifacts ---

    def _wants_artifacts(self, outcome: Outcome) -> bool:
        """A job that is out of time has none left for them, and a guest that was given up has nothing to say."""
        if self.guest.api.failure is not None:
            return False
        if outcome.result is JobStatus.SUCCESS:
            return True
        return self.manifest.leveret.artifacts_on == "always" and outcome.reason is not Reason.TIME_LIMIT

    async def _keep_artifacts(self) -> None:
        """Keep all that are there. Raises BuildFailed for the first that is not."""
        missing: BuildFailed | None = None
        for index, path in enumerate(self.manifest.artifacts):
            try:
                await self.report.keep_artifact(index, path, self.guest)
            except (GuestError, ValueError) as error:
                hint = "; '~' is taken literally, paths count from the home directory" if "~" in path else ""
                missing = missing or failed(Reason.ARTIFACT_FAILED, f"artifact {path}: {error}{hint}")
        if missing is not None:
            raise missing


def _outcome(error: BuildFailed | GuestError) -> Outcome:
    if isinstance(error, BuildFailed):
        return error.outcome
    return failed(Reason.SETUP_FAILED, str(error)).outcome
