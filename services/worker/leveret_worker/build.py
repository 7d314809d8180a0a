"""A build from its first line to its last. Read `Build.run` to know what happens in which order.

The order, the files in the guest and the meaning of exit statuses are builds.sr.ht's.
"""

import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from leveret_guestapi import ExitStatus, GuestError
from leveret_proto.manifest import Manifest, Source, Task
from leveret_proto.messages import SETUP_LOG, Grant, JobStatus, Reason, TaskState
from leveret_runtime.sealing import KeyPair
from leveret_worker.artifacts import ArtifactTooLarge
from leveret_worker.guest_secrets import SecretNotPlaced, called, place
from leveret_worker.guests import Guest
from leveret_worker.logs import SpooledLog
from leveret_worker.mirror import Mirror, MirrorError
from leveret_worker.scripts import COMPLETE_BUILD, buildenv, task_script

#: Where a mirrored source's bundle lies in the guest while it is cloned.
_BUNDLE = ".leveret-source.bundle"


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended. `result` None: handed back, it does not count."""

    result: JobStatus | None
    reason: Reason
    detail: str | None = None


class BuildFailed(Exception):
    """The build can't go on; `outcome` says why."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.detail)
        self.outcome = outcome


class Reporter(Protocol):
    """Where a build says how far it is. The attempt makes status snapshots of it."""

    def setup_done(self, seconds: float) -> None: ...

    def task(self, index: int, state: TaskState, exit_status: int | None, seconds: float | None) -> None: ...

    def open_log(self, name: str) -> SpooledLog: ...

    def close_log(self, log: SpooledLog) -> None: ...

    async def keep_artifact(self, index: int, path: str, guest: Guest) -> None:
        """Read `path` out of the guest. Raises GuestError, ArtifactTooLarge."""


@dataclass(frozen=True)
class Build:
    """One build: the guest it runs in, what to run, and where to report."""

    guest: Guest
    grant: Grant
    report: Reporter
    mirror: Mirror
    job_url: str
    #: What the grant's secrets are sealed to.
    keys: KeyPair

    @property
    def manifest(self) -> Manifest:
        return self.grant.manifest

    async def run(self) -> Outcome:
        """The whole build. Raises GuestApiError where contact with the guest is lost."""
        started = time.monotonic()
        setup = self.report.open_log(SETUP_LOG)
        try:
            await self._set_up(setup)
        except BuildFailed as failed:
            await setup.say(f"setup failed: {failed.outcome.detail}")
            return failed.outcome
        finally:
            self.report.close_log(setup)
        self.report.setup_done(time.monotonic() - started)

        outcome = await self._run_tasks()
        wanted = outcome.result is JobStatus.SUCCESS or self.manifest.leveret.artifacts_on == "always"
        if wanted:
            try:
                await self._keep_artifacts()
            except BuildFailed as failed:
                if outcome.result is JobStatus.SUCCESS:
                    return failed.outcome
        return outcome

    async def _set_up(self, log: SpooledLog) -> None:
        await log.say(f"job {self.grant.facts.job}, attempt {self.grant.attempt}: {self.guest.about}")
        await self.guest.api.sync_clock()
        await self._write_environment()
        await self._place_secrets(log)
        for name, value in self.manifest.repositories.items():
            await self._add_repository(log, name, value)
        if self.manifest.packages:
            await self._install_packages(log)
        for source in self.manifest.sources:
            await self._fetch(log, source)
        await self._write_tasks()

    async def _write_environment(self) -> None:
        facts = self.grant.facts
        builtin = {
            "JOB_ID": str(facts.job),
            "JOB_URL": self.job_url.format(owner=facts.owner, job=facts.job),
            "CI_NAME": "leveret",
        }
        await self._write("/.buildenv", buildenv(self.manifest.environment, builtin), 0o644)

    async def _place_secrets(self, log: SpooledLog) -> None:
        """Hand over what the dispatcher sealed for us. The first SSH key becomes the identity."""
        identity = next((secret for secret in self.grant.secrets if secret.kind == "ssh-key"), None)
        for secret in self.grant.secrets:
            await log.say(f"handing over secret {called(secret)} ({secret.kind})")
            try:
                await place(self.guest, secret, self.keys, identity=secret is identity)
            except SecretNotPlaced as error:
                raise _setup_failed(str(error)) from None

    async def _write_tasks(self) -> None:
        for task in self.manifest.tasks:
            script = task_script(self.guest.profile.preamble, task.script)
            await self._write(f"/.tasks/{task.name}", script, 0o755)

    async def _write(self, path: str, text: str, mode: int) -> None:
        profile = self.guest.profile
        await self.guest.api.write_file(profile.home + path, text.encode(), mode=mode, user=profile.user)

    async def _add_repository(self, log: SpooledLog, name: str, value: str) -> None:
        script = self.guest.profile.add_repository
        if script is None:
            raise _setup_failed(f"repository {name}: this kind of guest can add none")
        await log.say(f"adding repository {name}")
        await self._must(log, ["/bin/sh", "-euc", script, "add-repository", name, value], f"adding repository {name}")

    async def _install_packages(self, log: SpooledLog) -> None:
        script = self.guest.profile.install_packages
        if script is None:
            raise _setup_failed("packages: this kind of guest can install none")
        await log.say(f"installing {', '.join(self.manifest.packages)}")
        await self._must(
            log, ["/bin/sh", "-euc", script, "install-packages", *self.manifest.packages], "installing packages"
        )

    async def _fetch(self, log: SpooledLog, source: Source) -> None:
        """Clone one source: from the worker's mirror where it has it, else over the guest's own network."""
        if source.scm not in self.guest.profile.version_control:
            raise _setup_failed(f"source {source.text}: this guest has no {source.scm}")
        await log.say(f"cloning {source.url}")
        user, home = self.guest.profile.user, self.guest.profile.home
        try:
            bundle = self.mirror.bundle(source.url) if source.scm == "git" else None
            if bundle is not None:
                await log.say("from the worker's source mirror")
                async with aclosing(bundle):
                    await self.guest.api.write_file(f"{home}/{_BUNDLE}", bundle, user=user)
        except MirrorError as error:
            raise _setup_failed(f"source {source.text}: {error}") from error
        script = _CLONE[source.scm]
        origin = f"{home}/{_BUNDLE}" if bundle is not None else source.url
        words = ["/bin/sh", "-euc", script, "clone", origin, source.url, source.directory, source.ref or ""]
        await self._must(log, words, f"cloning {source.url}", user=user)

    async def _must(self, log: SpooledLog, words: list[str], what: str, user: str | None = None) -> None:
        status = await self._exec(log, words, user)
        if not status.success:
            raise _setup_failed(f"{what}: {status}")

    async def _run_tasks(self) -> Outcome:
        """Run the tasks in order; the first that fails skips the rest, and so does `complete-build`."""
        outcome = Outcome(JobStatus.SUCCESS, Reason.COMPLETED)
        skipping = False
        for index, task in enumerate(self.manifest.tasks):
            if skipping:
                self.report.task(index, TaskState.SKIPPED, None, None)
                continue
            code = await self._run_task(index, task)
            if code == COMPLETE_BUILD:
                skipping = True
            elif code != 0:
                skipping = True
                detail = f"task {task.name} ended with exit status {code}"
                outcome = Outcome(JobStatus.FAILED, Reason.TASK_FAILED, detail)
        return outcome

    async def _run_task(self, index: int, task: Task) -> int:
        started = time.monotonic()
        self.report.task(index, TaskState.RUNNING, None, None)
        log = self.report.open_log(task.name)
        try:
            status = await self._exec(log, [f"./.tasks/{task.name}"], self.guest.profile.user)
        finally:
            self.report.close_log(log)
        code = status.code if status.code is not None else 128 + (status.signal or 0)
        state = TaskState.SUCCESS if code in (0, COMPLETE_BUILD) else TaskState.FAILED
        self.report.task(index, state, code, time.monotonic() - started)
        return code

    async def _exec(self, log: SpooledLog, words: list[str], user: str | None) -> ExitStatus:
        """Run a command in the home directory with both outputs in one pipe, so that their order stays."""
        profile = self.guest.profile
        joined = ["/bin/sh", "-c", 'exec "$@" 2>&1', "run", *words]
        async with self.guest.api.exec(joined, env=profile.environment, user=user, cwd=profile.home) as process:
            async for _, data in process.output():
                await log.append(data)
            return await process.wait()

    async def _keep_artifacts(self) -> None:
        for index, path in enumerate(self.manifest.artifacts):
            try:
                await self.report.keep_artifact(index, path, self.guest)
            except (GuestError, ArtifactTooLarge) as error:
                detail = f"artifact {path}: {error}"
                raise BuildFailed(Outcome(JobStatus.FAILED, Reason.ARTIFACT_FAILED, detail)) from error


def _setup_failed(detail: str) -> BuildFailed:
    return BuildFailed(Outcome(JobStatus.FAILED, Reason.SETUP_FAILED, detail))


#: Scripts for `/bin/sh -eu`; $1: where to clone from, $2: the source's own address, $3: directory, $4: ref or nothing.
#: Hosts are not checked, as on builds.sr.ht: a fresh machine knows none.
_CLONE = {
    "git": """
        export GIT_SSH_COMMAND='ssh -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no'
        git clone --no-checkout -- "$1" "$3"
        if [ "$1" != "$2" ]; then rm -f -- "$1"; git -C "$3" remote set-url origin "$2"; fi
        cd "$3"
        if [ -n "$4" ]; then git checkout -q "$4" --; else git checkout -q; fi
        git submodule update --init --recursive
    """,
    "hg": """
        hg clone -e 'ssh -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no' -- "$1" "$3"
        if [ -n "$4" ]; then cd "$3"; hg update -- "$4"; fi
    """,
}
