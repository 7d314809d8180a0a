"""The worker with real QEMU guests: a whole build in a fresh machine; the test plays the dispatcher."""

import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from leveret_proto.messages import Cancel, WorkerBeat
from leveret_worker.images import ImageStore
from tests.support.dispatcher_played import DispatcherPlayed, StartWorker, make_grant
from tests.support.guest_images import stored_image
from tests.support.lone_worker import lone_worker
from tests.support.machines import machines
from tests.support.probes import add_image
from tests.support.processes import alive, descendants, until_gone
from tests.support.services import Service, Services
from tests.support.vhosts import Vhost

pytestmark = [pytest.mark.vm, pytest.mark.image("debian/trixie"), pytest.mark.timeout(900)]

IMAGE = "debian/trixie"
#: Seconds from a cancel until the machine is gone and its slot claimed: what is promised.
CANCELLED_WITHIN = 5.0
#: A beat that is due just when a slot frees stands in for its claim: none is due while a test waits for that.
RARE_BEATS = {"LEVERET_WORKER_BEAT_INTERVAL": "600"}


@pytest.fixture
def start_worker(vhost: Vhost, services: Services, tmp_path: Path) -> StartWorker:
    async def start(**environment: str) -> Service:
        given = lone_worker(
            vhost,
            tmp_path / "spool",
            images=stored_image(IMAGE).store.root,
            probe_limit=5,
            templates_ahead=False,  # of no image but the one that is asked for
        )
        return await services.start("leveret_worker.main", given | environment)

    return start


async def offering(dispatcher: DispatcherPlayed) -> WorkerBeat:
    """The first beat that offers the image."""
    while True:
        beat = await dispatcher.beat()
        if any(image.name == IMAGE for image in beat.capabilities.images):
            return beat


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A directory of bare repositories with one small C program."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "answer.c").write_text('#include <stdio.h>\nint main(void) { puts("42"); return 0; }\n')
    identity = {
        "GIT_AUTHOR_NAME": "t",
        "GIT_AUTHOR_EMAIL": "t@t",
        "GIT_COMMITTER_NAME": "t",
        "GIT_COMMITTER_EMAIL": "t@t",
    }
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "answer"]):
        subprocess.run(["git", *words], cwd=work, check=True, env={**os.environ, **identity}, timeout=30)
    bare = tmp_path / "mirror" / "~me"
    bare.mkdir(parents=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(bare / "answer")], check=True, timeout=30)
    return tmp_path / "mirror"


async def test_a_build_in_a_machine_of_its_own(
    dispatcher: DispatcherPlayed, start_worker: StartWorker, mirror: Path, tmp_path: Path
) -> None:
    mirrors = f'{{"https://git.example.org/": "{mirror}"}}'
    service = await start_worker(LEVERET_WORKER_SOURCE_MIRRORS=mirrors, **RARE_BEATS)
    beat = await offering(dispatcher)
    manifest = f"""
image: {IMAGE}
sources: [https://git.example.org/~me/answer]
environment: {{WHO: guest}}
tasks:
- who: |
    whoami; pwd; echo "$WHO"; git -C answer remote get-url origin
- make: |
    cd answer
    cc -o answer answer.c
    ./answer
artifacts: [answer/answer]
"""
    grant = make_grant(beat, manifest, time_limit=300)
    await dispatcher.grant(grant, "x86_64", IMAGE)
    await dispatcher.status("running", limit=120)
    (machine,) = machines(service.pid, tmp_path / "spool")
    await dispatcher.freed_slot(grant, limit=240)
    # the machine and its files are gone before the slot is free
    assert alive([machine.pid]) == []
    assert list((tmp_path / "spool" / "run").glob("[0-9a-f]*")) == []
    ended = await dispatcher.status("ended")
    assert (ended.result, ended.reason, ended.detail) == ("success", "completed", None)
    assert b"build\n" in await dispatcher.log("who")
    assert b"/home/build\n" in await dispatcher.log("who")
    assert b"guest\n" in await dispatcher.log("who")
    assert b"https://git.example.org/~me/answer\n" in await dispatcher.log("who")
    assert b"42\n" in await dispatcher.log("make")
    assert bytes(dispatcher.artifacts[:4]) == b"\x7fELF"
    assert hashlib.sha256(dispatcher.artifacts).hexdigest() == ended.artifacts[0].sha256
    assert ended.timings.boot is not None
    assert service.running


async def test_a_cancelled_build_leaves_no_machine(
    dispatcher: DispatcherPlayed, start_worker: StartWorker, tmp_path: Path
) -> None:
    service = await start_worker(**RARE_BEATS)
    beat = await offering(dispatcher)
    manifest = f"image: {IMAGE}\ntasks:\n- forever: sleep 10000\n"
    grant = make_grant(beat, manifest)
    await dispatcher.grant(grant, "x86_64", IMAGE)
    await dispatcher.status("running", limit=120)
    (machine,) = machines(service.pid, tmp_path / "spool")
    asked = time.monotonic()
    await dispatcher.order(beat, Cancel(grant=grant.grant))
    await dispatcher.freed_slot(grant)
    took = time.monotonic() - asked
    assert alive([machine.pid]) == []
    assert list((tmp_path / "spool" / "run").glob("[0-9a-f]*")) == []
    assert took < CANCELLED_WITHIN, f"{took:.1f} s"
    ended = await dispatcher.status("ended")
    assert ended.result == "cancelled"


async def test_a_killed_worker_takes_its_machines_along(
    dispatcher: DispatcherPlayed, start_worker: StartWorker
) -> None:
    service = await start_worker()
    beat = await offering(dispatcher)
    await dispatcher.grant(make_grant(beat, f"image: {IMAGE}\ntasks:\n- forever: sleep 10000\n"), "x86_64", IMAGE)
    await dispatcher.status("running", limit=120)
    started = descendants(service.pid)[1:]
    assert started
    await service.kill()
    await until_gone(started)


async def test_kvm_is_offered_only_where_a_guest_booted_under_it(
    dispatcher: DispatcherPlayed, start_worker: StartWorker
) -> None:
    await start_worker()
    await offering(dispatcher)
    while True:
        beat = await dispatcher.beat(limit=60)
        told = [note for note in beat.notes if note.startswith("kvm: ")]
        if told:
            break
    assert (beat.capabilities.kvm == ("x86_64",)) == told[0].startswith("kvm: offered")


async def test_sighup_has_everything_proved_again(
    dispatcher: DispatcherPlayed, start_worker: StartWorker, tmp_path: Path
) -> None:
    store = ImageStore(tmp_path / "images")
    image = add_image(store, IMAGE)
    service = await start_worker(LEVERET_WORKER_IMAGES=str(store.root), LEVERET_WORKER_PROBE_INTERVAL="3600")
    await offering(dispatcher)
    image.disk.unlink()
    os.kill(service.pid, signal.SIGHUP)
    while (await dispatcher.beat()).capabilities.images:
        pass
    assert service.running
