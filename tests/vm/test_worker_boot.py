"""Guests of the qemu executor: what happens when one does not come up."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from leveret_guestapi import GuestApiError
from leveret_worker import starting
from leveret_worker.config import Config
from leveret_worker.guests import Withdrawn
from leveret_worker.qemu import Cages, Machine, MachineError
from leveret_worker.qemu_executor import STARTS, QemuExecutor
from tests.support.dispatcher_played import make_grant
from tests.support.guest_images import stored_image
from tests.support.probes import ChosenProbes
from tests.unit.worker.test_snapshot import BEAT

pytestmark = [pytest.mark.vm, pytest.mark.image("test/minimal"), pytest.mark.timeout(900)]

MANIFEST = "image: test/minimal\ntasks:\n- one: 'true'\n"
WITH_KVM = MANIFEST + "leveret: {requires: {kvm: true}}\n"


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


@asynccontextmanager
async def executor(folder: Path, probes: ChosenProbes) -> AsyncIterator[QemuExecutor]:
    """An executor that has proved what `probes` say."""
    image = stored_image("test/minimal")
    config = Config(
        amqp_url="amqp://unused",  # type: ignore[arg-type]
        name="w1",
        spool=folder,
        images=image.store.root,
        start="cold",
    )
    changed = asyncio.Event()
    async with Cages() as cages, asyncio.TaskGroup() as group:
        made = QemuExecutor(config, cages, probes)
        proving = group.create_task(made.prove(changed.set))
        async with asyncio.timeout(30):
            while not made.offer().images or (probes.virtualised and not made.offer().kvm):
                changed.clear()
                await changed.wait()
        yield made
        proving.cancel()


async def test_another_machine_is_booted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    flaky = Flaky(1)
    monkeypatch.setattr(starting, "Machine", flaky)
    async with executor(tmp_path, ChosenProbes(virtualised=False)) as qemu:
        async with qemu.guest(make_grant(BEAT, MANIFEST), tmp_path) as guest:
            assert (await guest.api.run(["true"])).status.success
    assert flaky.starts == 2
    assert not (tmp_path / "machine").exists()


async def test_after_some_boots_the_build_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(starting, "Machine", Flaky(STARTS))
    async with executor(tmp_path, ChosenProbes(virtualised=False)) as qemu:
        with pytest.raises(GuestApiError, match=f"no guest came up in {STARTS} starts"):
            async with qemu.guest(make_grant(BEAT, MANIFEST), tmp_path):
                pass


async def test_a_boot_that_fails_has_kvm_proved_again_and_without_it_the_build_is_handed_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    flaky = Flaky(STARTS)
    monkeypatch.setattr(starting, "Machine", flaky)
    probes = ChosenProbes()
    async with executor(tmp_path, probes) as qemu:
        assert qemu.offer().kvm == (os.uname().machine,)
        probes.virtualised = False
        with pytest.raises(Withdrawn, match="kvm x86_64 is not offered any more"):
            async with qemu.guest(make_grant(BEAT, WITH_KVM), tmp_path):
                pass
        assert flaky.starts == 1
        assert qemu.offer().kvm == ()
        with pytest.raises(Withdrawn):  # a grant that was on its way
            async with qemu.guest(make_grant(BEAT, WITH_KVM), tmp_path):
                pass
        assert flaky.starts == 1


async def test_a_build_that_needs_no_kvm_goes_on_without_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    flaky = Flaky(1)
    monkeypatch.setattr(starting, "Machine", flaky)
    probes = ChosenProbes()
    async with executor(tmp_path, probes) as qemu:
        probes.virtualised = False
        async with qemu.guest(make_grant(BEAT, MANIFEST), tmp_path) as guest:
            assert guest.about.startswith("test/minimal for x86_64 (tcg)")
        assert flaky.starts == 2
        assert qemu.offer().kvm == ()
