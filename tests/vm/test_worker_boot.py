"""Guests of the qemu executor: what happens when one does not come up."""

from pathlib import Path
from typing import Any

import pytest

from leveret_guestapi import GuestApiError
from leveret_worker import qemu_executor
from leveret_worker.config import Config
from leveret_worker.qemu import Machine, MachineError
from leveret_worker.qemu_executor import BOOTS, QemuExecutor
from tests.support.dispatcher_played import make_grant
from tests.support.guest_images import stored_image
from tests.unit.worker.test_snapshot import BEAT

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]


class Flaky:
    """Stands for `Machine`: the first starts fail as an emulator does now and then, the rest are real."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.starts = 0

    def start(self, *given: Any, **named: Any) -> Any:
        self.starts += 1
        if self.starts <= self.failures:
            raise MachineError("the machine ended before its agent was there")
        return Machine.start(*given, **named)


@pytest.fixture
def executor(tmp_path: Path) -> QemuExecutor:
    image = stored_image("debian/trixie")
    return QemuExecutor(
        Config(amqp_url="amqp://unused", name="w1", spool=tmp_path, images=image.store.root)  # type: ignore[arg-type]
    )


async def test_another_machine_is_booted(
    executor: QemuExecutor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    flaky = Flaky(1)
    monkeypatch.setattr(qemu_executor, "Machine", flaky)
    grant = make_grant(BEAT, "image: debian/trixie\ntasks:\n- one: 'true'\n")
    async with executor.guest(grant, tmp_path) as guest:
        assert (await guest.api.run(["true"])).status.success
    assert flaky.starts == 2
    assert not (tmp_path / "machine").exists()


async def test_after_some_boots_the_build_is_given_up(
    executor: QemuExecutor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(qemu_executor, "Machine", Flaky(BOOTS))
    grant = make_grant(BEAT, "image: debian/trixie\ntasks:\n- one: 'true'\n")
    with pytest.raises(GuestApiError, match=f"no guest came up in {BOOTS} boots"):
        async with executor.guest(grant, tmp_path):
            pass
