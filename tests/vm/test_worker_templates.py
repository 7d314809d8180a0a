"""Guests of the qemu executor that go on from templates, and what happens where they do not."""

import asyncio
import hashlib
import json
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from leveret_guestapi import GuestClient
from leveret_worker.booting import boot_files
from leveret_worker.config import Config
from leveret_worker.guests import Withdrawn
from leveret_worker.images import StoredImage
from leveret_worker.qemu import Accelerator, Cages, Templates
from leveret_worker.qemu.template_files import read_manifest
from leveret_worker.qemu_executor import QemuExecutor
from leveret_worker.starting import Starter, Wanted
from tests.support.dispatcher_played import make_grant
from tests.support.guest_images import stored_image
from tests.support.probes import ChosenProbes
from tests.unit.worker.test_snapshot import BEAT

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

MANIFEST = "image: test/minimal\ntasks:\n- one: 'true'\n"
SMALL = MANIFEST + "leveret: {memory: 192MiB, cpus: 2}\n"
LIMIT = 120.0


@pytest.fixture(scope="module")
def image() -> StoredImage:
    return stored_image("test/minimal")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Templates of all tests of this module: one is recorded only once."""
    return tmp_path_factory.mktemp("templates")


def configured(image: StoredImage, spool: Path, templates: Path, **more: Any) -> Config:
    given: dict[str, Any] = {
        "amqp_url": "amqp://unused",
        "name": "w1",
        "spool": spool,
        "images": image.store.root,
        "memory_mib": 256,
        "memory_mib_most": 512,
        "cpus_most": 2,
        "network": "none",
        "isolation": "try",
        "templates": templates,
        "templates_ahead": False,
    }
    return Config(**(given | more))


@asynccontextmanager
async def executor(config: Config) -> AsyncIterator[QemuExecutor]:
    """An executor that has proved its emulators."""
    changed = asyncio.Event()
    async with Cages() as cages, asyncio.TaskGroup() as group:
        made = QemuExecutor(config, cages, ChosenProbes(virtualised=False))
        proving = group.create_task(made.prove(changed.set))
        async with asyncio.timeout(LIMIT):
            while not made.offer().images:
                changed.clear()
                await changed.wait()
        yield made
        proving.cancel()


async def said(api: GuestClient, script: str) -> list[str]:
    done = await api.run(script)
    assert done.status.success, done
    return done.stdout.decode().split()


async def test_guests_go_on_from_a_template_recorded_on_first_use(
    image: StoredImage, shared: Path, tmp_path: Path
) -> None:
    async with executor(configured(image, tmp_path, shared)) as qemu:
        ids = set()
        for number in (1, 2):
            folder = tmp_path / str(number)
            async with qemu.guest(make_grant(BEAT, MANIFEST), folder) as guest:
                assert guest.about.endswith(f"image {image.digest[:12]}, restored from a template")
                host, machine_id, now = await said(guest.api, "hostname; cat /etc/machine-id; date +%s")
                assert host == "job-7"
                assert len(machine_id) == 32
                ids.add(machine_id)
                assert abs(int(now) - time.time()) < 30
            assert not (folder / "machine").exists()
        assert len(ids) == 2
        assert len(list(shared.glob("*/"))) == 1


async def test_a_job_gets_the_memory_and_processors_it_asks_for(
    image: StoredImage, shared: Path, tmp_path: Path
) -> None:
    async with executor(configured(image, tmp_path, shared)) as qemu:
        async with qemu.guest(make_grant(BEAT, SMALL), tmp_path) as guest:
            nproc, _, kib, *_ = await said(guest.api, "nproc; grep MemTotal /proc/meminfo")
            assert int(nproc) == 2
            assert 128 * 1024 < int(kib) < 192 * 1024
        for asked, what in (("memory: 1GiB", "memory 1GiB"), ("cpus: 3", "cpus 3")):
            with pytest.raises(Withdrawn, match=what):
                async with qemu.guest(make_grant(BEAT, f"{MANIFEST}leveret: {{{asked}}}\n"), tmp_path):
                    pass


async def test_what_no_machine_goes_on_from_is_thrown_away_and_the_guest_booted(
    image: StoredImage, shared: Path, tmp_path: Path
) -> None:
    async with executor(configured(image, tmp_path, shared)) as qemu:
        async with qemu.guest(make_grant(BEAT, MANIFEST), tmp_path):
            pass
    config = configured(image, tmp_path, tmp_path / "templates")
    async with Cages() as cages:
        starter = Starter(config, cages, None)
        wanted = Wanted(image, await boot_files(image), starter.spec(image, Accelerator.TCG))
        key = (await wanted.origin()).key
    template = shutil.copytree(shared / key, tmp_path / "templates" / key)
    manifest = read_manifest(template)
    # whole by its digests, but nothing QEMU would take
    garbage = b"no device state"
    (template / "state").write_bytes(garbage)
    document = json.loads(manifest.model_dump_json())
    document["files"]["state"] = hashlib.sha256(garbage).hexdigest()
    (template / "manifest.json").write_text(json.dumps(document))
    with capture_logs() as logs:
        async with executor(config) as qemu:
            async with qemu.guest(make_grant(BEAT, MANIFEST), tmp_path) as guest:
                assert guest.about.endswith("booted")
                assert (await said(guest.api, "hostname")) == ["job-7"]
    (thrown,) = [entry for entry in logs if entry["event"] == "template thrown away"]
    assert "could not go on from it" in thrown["reason"]
    assert not template.exists()
    assert not (tmp_path / "machine").exists()


async def test_cold_boots_where_that_is_wanted(image: StoredImage, tmp_path: Path) -> None:
    config = configured(image, tmp_path, tmp_path / "templates", start="cold")
    async with executor(config) as qemu:
        async with qemu.guest(make_grant(BEAT, MANIFEST), tmp_path) as guest:
            assert guest.about.endswith("booted")
            assert (await said(guest.api, "hostname")) == ["job-7"]
    assert not (tmp_path / "templates").exists()


async def test_templates_are_recorded_before_a_job_asks(image: StoredImage, tmp_path: Path) -> None:
    config = configured(image, tmp_path, tmp_path / "templates")
    async with Cages() as cages:
        templates = Templates(tmp_path / "templates", disk_limit=2**30, memory_limit=2**30)
        starter = Starter(config, cages, templates)
        await starter.record_ahead(image, Accelerator.TCG)
        wanted = Wanted(image, await boot_files(image), starter.spec(image, Accelerator.TCG))
        (template,) = (tmp_path / "templates").glob("*/")
        assert template.name == (await wanted.origin()).key
        before = template.stat().st_ino
        await starter.record_ahead(image, Accelerator.TCG)
        assert template.stat().st_ino == before
        templates.close()


async def test_eight_at_once_come_up(image: StoredImage, shared: Path, tmp_path: Path) -> None:
    async with executor(configured(image, tmp_path, shared)) as qemu:

        async def one(number: int) -> str:
            async with qemu.guest(make_grant(BEAT, MANIFEST), tmp_path / str(number)) as guest:
                all_up.release()
                await everybody.wait()
                return f"{guest.about.rpartition(', ')[2]} {(await said(guest.api, 'cat /etc/machine-id'))[0]}"

        all_up, everybody = asyncio.Semaphore(0), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(number)) for number in range(8)]
            async with asyncio.timeout(LIMIT):
                for _ in tasks:
                    await all_up.acquire()
            everybody.set()
        found = [task.result() for task in tasks]
        assert len(set(found)) == 8
        assert all(text.startswith("restored from a template ") for text in found)


async def test_a_restored_guest_that_does_not_answer_in_time_is_replaced_by_a_booted_one(
    image: StoredImage, shared: Path, tmp_path: Path
) -> None:
    config = configured(image, tmp_path, shared, restore_limit=0.001)
    with capture_logs() as logs:
        async with executor(config) as qemu:
            async with qemu.guest(make_grant(BEAT, MANIFEST), tmp_path) as guest:
                assert guest.about.endswith("booted")
    (thrown,) = [entry for entry in logs if entry["event"] == "template thrown away"]
    assert "did not answer within 0.001 s" in thrown["reason"]
