"""The manifest's whole surface in real guests: what a build sees on builds.sr.ht, a build here sees."""

import hashlib
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from leveret_proto.messages import AttemptStatus, Cancel, WorkerBeat
from tests.support.dispatcher_played import DispatcherPlayed, make_grant
from tests.support.guest_images import stored_image
from tests.support.lone_worker import lone_worker
from tests.support.machines import machines
from tests.support.origins import Origins, serving
from tests.support.processes import alive
from tests.support.sealed_secrets import SSH_KEY, new_pgp_key, sealed
from tests.support.services import Services
from tests.support.vhosts import Vhost

pytestmark = [
    pytest.mark.vm,
    pytest.mark.image("test/minimal"),
    pytest.mark.image("debian/trixie"),
    pytest.mark.timeout(900),
]

DEBIAN, MINIMAL = "debian/trixie", "test/minimal"
#: Seconds from a cancel until its end is told, whatever state the guest is in: what is promised.
CANCELLED_WITHIN = 5.0


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path: gpg's agent listens in it."""
    with tempfile.TemporaryDirectory(prefix="lv-") as folder:
        yield Path(folder)


@dataclass
class Bench:
    """A worker with one slot, which builds one manifest after the other."""

    dispatcher: DispatcherPlayed
    pid: int
    spool: Path
    beat: WorkerBeat
    image: str
    token: str
    grant: str = ""

    async def begin(self, rest: str, **given: object) -> None:
        """Have a manifest built (all but its image). No two may have tasks of one name."""
        grant = make_grant(self.beat, f"image: {self.image}\n{rest}", token=self.token, **({"time_limit": 600} | given))
        await self.dispatcher.grant(grant, "x86_64", self.image)
        self.grant = grant.grant

    async def end(self) -> AttemptStatus:
        """Wait for its end, and for the slot."""
        while (ended := await self.dispatcher.status("ended", limit=300)).grant != self.grant:
            pass
        while self.token in (claim := await self.dispatcher.claim()).tokens:
            pass
        self.token = claim.tokens[0]
        return ended

    async def build(self, rest: str, **given: object) -> AttemptStatus:
        await self.begin(rest, **given)
        return await self.end()

    def emulator(self) -> int:
        """The QEMU that runs now."""
        (found,) = machines(self.pid, self.spool)
        return found.pid

    def told(self) -> str:
        """All logs as far as they have come."""
        return "\n".join(f"--- {name}\n{log.decode(errors='replace')}" for name, log in self.dispatcher.logs.items())

    async def output(self, task: str) -> list[str]:
        """A task's log, without what bash says of the commands it runs."""
        lines = (await self.dispatcher.log(task)).decode().splitlines()
        return [line for line in lines if not line.startswith("+")]


@asynccontextmanager
async def bench(
    dispatcher: DispatcherPlayed, services: Services, vhost: Vhost, spool: Path, image: str, **environment: str
) -> AsyncIterator[Bench]:
    given = lone_worker(
        vhost,
        spool,
        images=stored_image(image).store.root,
        probe_limit=0.1,
        templates_ahead=False,  # of no image but the one that is asked for
        beat_interval=600,  # a beat that is due stands in for the claim that `end` waits for
        job_url="https://builds.example.org/{owner}/job/{job}",
        kill_after=1,
    )
    service = await services.start("leveret_worker.main", given | environment)
    beat = await dispatcher.beat(limit=60)
    while image not in [offer.name for offer in beat.capabilities.images]:
        beat = await dispatcher.beat(limit=60)
    yield Bench(dispatcher, service.pid, spool, beat, image, beat.tokens[0])
    assert service.running


@pytest.fixture
async def minimal(
    dispatcher: DispatcherPlayed, services: Services, vhost: Vhost, tmp_path: Path
) -> AsyncIterator[Bench]:
    silence = {"LEVERET_WORKER_GUEST_SILENCE_LIMIT": "3", "LEVERET_WORKER_GUEST_ANSWER_LIMIT": "30"}
    async with bench(dispatcher, services, vhost, tmp_path / "spool", MINIMAL, **silence) as made:
        yield made


# --- a manifest as people write them for builds.sr.ht ---

BUILDS_SR_HT = """
arch: amd64
repositories:
  local: {repository}
packages:
- leveret-hello
sources:
- {url}/project.git#feature
- other::{url}/project.git
- hg+static-http://{host}/tool#v1
environment:
  deploy: build@example.org
  sites: [one.example.org, "two words", "$HOME"]
  release: true
  quick: false
  jobs: 4
  share: 1.5
  nothing:
  JOB_ID: 99
secrets:
- 0f1d4d0e-6c3a-4f5b-8d2f-2f6f7d0c9a11
- build token
tasks:
- guest: |
    set +x
    id -un; pwd; echo "$HOME $USER $SHELL"
    stat -c '%U %a %n' .buildenv .tasks/guest .tasks/later
    head -n 3 .tasks/guest
    sudo id -u
- environment: |
    set +x
    echo "$deploy|${{#sites[@]}}|${{sites[1]}}|${{sites[2]}}|$release|$quick|$jobs|$share|$nothing|"
    echo "$CI_NAME $JOB_ID $JOB_URL"
    sh -c 'echo "$deploy ${{sites:-not exported}}"'
- packages: |
    leveret-hello
- sources: |
    set +x
    ls -1 -d project other tool
    cat project/feature project/lib/answer tool/hello.txt
    git -C project rev-parse --abbrev-ref HEAD
    git -C other rev-parse --abbrev-ref HEAD
    test ! -e other/feature
    git -C other commit -q --allow-empty -m "builds may commit"
- secrets: |
    set +x
    stat -c '%U %a' .ssh .ssh/{ssh} .config/app/token /etc/app/token
    sha256sum .ssh/id_rsa .config/app/token /etc/app/token | cut -c 1-64
    gpg --batch --list-secret-keys
- finish: |
    mkdir -p project/build
    printf 'made\\n' >project/build/tool
    complete-build
    echo never
- later: |
    false
artifacts:
- project/build/tool
- /etc/hostname
"""


@pytest.fixture
def origins(tmp_path: Path, short: Path) -> Iterator[tuple[Origins, str]]:
    """What the manifest fetches, and its line for the package repository."""
    with serving(tmp_path / "origins") as served:
        served.git("lib", {"answer": "42\n"})
        served.git("project", {"README": "a project\n"}, submodule="lib")
        served.hg("tool", {"hello.txt": "hello from hg\n"})
        program = "#!/bin/sh\necho hello from a package\n"
        line = served.debian("local", "leveret-hello", {"usr/bin/leveret-hello": program}, short / "archive")
        yield served, line


async def test_a_manifest_of_builds_sr_ht_finds_everything_where_it_is_there(
    dispatcher: DispatcherPlayed,
    services: Services,
    vhost: Vhost,
    tmp_path: Path,
    short: Path,
    origins: tuple[Origins, str],
) -> None:
    served, repository = origins
    value = b"s3cret-file-value\n\x00\xff"
    pgp_key = new_pgp_key(short / "gpg")
    async with bench(dispatcher, services, vhost, tmp_path / "spool", DEBIAN, LEVERET_WORKER_NETWORK="full") as worker:
        secrets = (
            sealed(worker.beat, SSH_KEY, "ssh-key"),
            sealed(worker.beat, value, path="~/.config/app/token", mode=0o640),
            sealed(worker.beat, value, path="/etc/app/token"),
            sealed(worker.beat, pgp_key, "pgp-key"),
            # the test's own repository is to be the only one
            sealed(worker.beat, b"# none\n", path="/etc/apt/sources.list"),
        )
        host = served.url.removeprefix("http://")
        manifest = BUILDS_SR_HT.format(repository=repository, url=served.url, host=host, ssh=secrets[0].uuid)
        ended = await worker.build(manifest, secrets=secrets)
        assert (ended.result, ended.reason, ended.detail) == ("success", "completed", None), worker.told()

        names = ["guest", "environment", "packages", "sources", "secrets", "finish", "later"]
        assert [(task.name, task.state) for task in ended.tasks] == [
            *((name, "success") for name in names[:-1]),
            ("later", "skipped"),
        ]
        assert await worker.output("guest") == [
            "build", "/home/build", "/home/build build /bin/bash",
            "build 755 .buildenv", "build 755 .tasks/guest", "build 755 .tasks/later",
            "#!/usr/bin/env bash", ". ~/.buildenv", "set -xe",
            "0",
        ]  # fmt: skip
        assert await worker.output("environment") == [
            "build@example.org|3|two words|$HOME|true|false|4|1.5||",
            "leveret 7 https://builds.example.org/me/job/7",
            "build@example.org not exported",
        ]
        assert await worker.output("packages") == ["hello from a package"]
        assert await worker.output("sources") == [
            "other", "project", "tool", "on the branch", "42", "hello from hg", "feature", "main",
        ]  # fmt: skip
        digests = [hashlib.sha256(content).hexdigest() for content in (SSH_KEY, value, value)]
        found = await worker.output("secrets")
        assert found[:7] == ["build 700", "build 600", "build 640", "build 600", *digests]
        assert any("builder@example.org" in line for line in found[7:])
        assert await worker.output("finish") == []
        assert [(kept.path, kept.name, kept.bytes) for kept in ended.artifacts] == [
            ("project/build/tool", "tool", 5),
            ("/etc/hostname", "hostname", ended.artifacts[1].bytes),
        ]
        assert ended.artifacts[0].sha256 == hashlib.sha256(b"made\n").hexdigest()
        assert [digest.task for digest in ended.logs] == ["@setup", *names[:-1]]


# --- the rest of a build's life, in the smallest guest ---


async def test_a_task_in_a_guest_has_a_terminal_and_time_limits_are_kept(minimal: Bench) -> None:
    ended = await minimal.build(r"""
environment: {GREETING: hello}
tasks:
- look: |
    set +x
    for fd in 0 1 2; do test -t $fd && echo "$fd yes" || echo "$fd no"; done
    stty size <&1
    echo "$GREETING $TERM $PAGER $(id -un) $PWD"
    read line || echo "no input"
    (: </dev/tty) 2>/dev/null || echo "nobody to ask"
    sleep 1000 &
    echo $! >pid
- next: kill -0 $(cat pid)
- polite: |
    trap 'echo last words; exit 0' TERM
    sleep 1000 & wait
- never: 'true'
artifacts: [pid]
leveret: {task_time_limit: 5, artifacts_on: always}
""")
    assert await minimal.output("look") == [
        "0 no", "1 yes", "2 yes", "24 80", "hello xterm cat build /home/build", "no input", "nobody to ask",
    ]  # fmt: skip
    assert (ended.result, ended.reason) == ("timeout", "task-time-limit")
    assert ended.detail == "task polite's time limit of 5 s is over: SIGTERM ended it"
    assert [(task.state, task.exit_status) for task in ended.tasks] == [
        ("success", 0), ("success", 0), ("failed", 0), ("skipped", None),
    ]  # fmt: skip
    assert "last words" in await minimal.output("polite")
    assert [kept.name for kept in ended.artifacts] == ["pid"]

    stubborn = "trap '' TERM; echo waiting; while true; do sleep 1000 || true; done"
    ended = await minimal.build(f"tasks:\n- stubborn: \"{stubborn}\"\n- two: 'true'\n", time_limit=15)
    assert (ended.result, ended.reason) == ("timeout", "time-limit")
    assert ended.detail == "the job's time limit of 15 s is over: SIGTERM did not end it within 1 s, SIGKILL did"
    assert [task.state for task in ended.tasks] == ["failed", "skipped"]
    assert "waiting" in await minimal.output("stubborn")


FOREVER = "tasks:\n- {}: echo here; sleep 1000\n"


async def test_each_end_of_a_guest_says_which_it_was(minimal: Bench) -> None:
    """All is well, a machine that powers off, an emulator that dies, a guest that falls silent, a cancel of one."""
    ended = await minimal.build(
        "shell: true\noauth: git.sr.ht/REPOSITORIES:RO\nsubmitter: {git.sr.ht: {enabled: true}}\n"
    )
    assert (ended.result, ended.reason, ended.tasks) == ("success", "completed", ())

    ended = await minimal.build("tasks:\n- off: sudo sh -c 'echo o >/proc/sysrq-trigger'; sleep 1000\n")
    assert (ended.result, ended.reason) == ("failed", "machine-ended")

    ended = await minimal.build("tasks:\n- panic: sudo sh -c 'echo c >/proc/sysrq-trigger'; sleep 1000\n")
    assert (ended.result, ended.reason) == ("failed", "machine-ended")
    assert "panic" in (ended.detail or "")

    await minimal.begin(FOREVER.format("killed"))
    await minimal.dispatcher.log_shows("killed", b"here\n", limit=120)
    os.kill(minimal.emulator(), signal.SIGKILL)
    died = time.monotonic()
    ended = await minimal.end()
    assert (ended.result, ended.reason) == ("failed", "machine-ended")
    assert time.monotonic() - died < 2.5  # at once, not with the beat

    await minimal.begin(FOREVER.format("silent"))
    await minimal.dispatcher.log_shows("silent", b"here\n", limit=120)
    emulator = minimal.emulator()
    os.kill(emulator, signal.SIGSTOP)
    ended = await minimal.end()
    assert (ended.result, ended.reason) == ("failed", "guest-lost")
    assert "beat" in (ended.detail or "")
    assert alive([emulator]) == []

    await minimal.begin(FOREVER.format("cancelled"))
    await minimal.dispatcher.log_shows("cancelled", b"here\n", limit=120)
    os.kill(minimal.emulator(), signal.SIGSTOP)
    asked = time.monotonic()
    await minimal.dispatcher.order(minimal.beat, Cancel(grant=minimal.grant))
    ended = await minimal.end()
    assert (ended.result, ended.reason) == ("cancelled", "cancelled")
    assert time.monotonic() - asked < CANCELLED_WITHIN
