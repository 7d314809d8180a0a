"""What `leveret-worker probe` says of a host: trials chosen by the test, a real store, the real command."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from leveret_worker.config import Config
from leveret_worker.examination import Finding, examine
from leveret_worker.images import ImageStore
from leveret_worker.main import main
from leveret_worker.qemu.probe import proof_grounds
from tests.support.probes import ARCH, ChosenProbes, add_image


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def configured(tmp_path: Path, **more: Any) -> Config:
    given: dict[str, Any] = {
        "amqp_url": "amqp://unused",
        "name": "w1",
        "spool": tmp_path / "spool",
        "images": tmp_path / "images",
        "network": "none",
        "isolation": "try",
    }
    return Config(**(given | more))


async def found(config: Config, tmp_path: Path, probes: ChosenProbes) -> dict[tuple[str, str], Finding]:
    return {(finding.kind, finding.subject): finding async for finding in examine(config, tmp_path / "folder", probes)}


async def test_each_thing_is_named_with_its_verdict_and_why(store: ImageStore, tmp_path: Path) -> None:
    add_image(store, "test/one")
    findings = await found(configured(tmp_path, memory_mib_most=2048, cpus_most=3), tmp_path, ChosenProbes())
    assert findings["image", f"test/one {ARCH}"].verdict == "yes"
    assert findings["emulator", ARCH].reason == "chosen by the test"
    assert (findings["kvm", ARCH].verdict, findings["kvm", ARCH].reason) == ("yes", "chosen by the test")
    assert findings["template", f"test/one {ARCH}"].reason.startswith("not recorded yet")
    assert any(kind == "isolation" for kind, _ in findings)
    (limits,) = (finding for (kind, _), finding in findings.items() if kind == "limits")
    assert limits.reason == "a job may ask for 2GiB of memory and 3 virtual processors"
    assert not (tmp_path / "spool").exists()


async def test_what_does_not_work_is_a_fault_but_kvm_that_is_not_there_is_none(
    store: ImageStore, tmp_path: Path
) -> None:
    image = add_image(store, "test/one")
    without_kvm = await found(configured(tmp_path), tmp_path, ChosenProbes(virtualised=False))
    assert without_kvm["kvm", ARCH].verdict == "no"
    assert not [finding for finding in without_kvm.values() if finding.verdict == "fault"]
    broken = await found(configured(tmp_path, start="cold"), tmp_path, ChosenProbes(emulators=False))
    assert broken["emulator", ARCH].verdict == "fault"
    assert ("kvm", ARCH) not in broken
    assert "cold" in broken["template", f"test/one {ARCH}"].reason
    image.disk.write_bytes(b"othr")
    damaged = await found(configured(tmp_path), tmp_path, ChosenProbes())
    assert damaged["image", f"test/one {ARCH}"].verdict == "fault"
    assert "was changed" in damaged["image", f"test/one {ARCH}"].reason
    assert damaged["image", str(store.root)].verdict == "fault"


def test_the_command_prints_an_object_a_line_and_tells_by_its_status(tmp_path: Path) -> None:
    environment = {
        "LEVERET_WORKER_AMQP_URL": "amqp://unused",
        "LEVERET_WORKER_NAME": "w1",
        "LEVERET_WORKER_SPOOL": str(tmp_path / "spool"),
        "LEVERET_WORKER_IMAGES": str(tmp_path / "images"),
        "LEVERET_WORKER_NETWORK": "none",
        "LEVERET_WORKER_ISOLATION": "try",
    }
    as_json = CliRunner().invoke(main, ["probe", "--json"], env=environment)
    assert as_json.exit_code == 1, as_json.output
    documents = [json.loads(line) for line in as_json.stdout.splitlines()]
    (image,) = (document for document in documents if document["kind"] == "image")
    assert image["verdict"] == "fault"
    assert image["reason"] == "no image can be used: build one with leveret-image"
    for_people = CliRunner().invoke(main, ["probe"], env=environment)
    assert for_people.exit_code == 1
    assert "no image can be used" in for_people.stdout


def test_without_a_configuration_the_command_says_what_is_missing() -> None:
    answer = CliRunner().invoke(main, ["probe"], env={"LEVERET_WORKER_NAME": None})
    assert answer.exit_code == 2
    assert "leveret-worker:" in answer.stderr


def test_a_proof_rests_on_boot_kernel_and_emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    absent = proof_grounds("x86_64")
    assert os.uname().release in absent
    emulator = tmp_path / "qemu-system-x86_64"
    emulator.touch(mode=0o755)
    installed = proof_grounds("x86_64")
    os.utime(emulator, (1, 1))
    upgraded = proof_grounds("x86_64")
    assert len({absent, installed, upgraded}) == 3
    assert proof_grounds("x86_64") == upgraded
