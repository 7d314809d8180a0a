"""The offer follows what is proved: trials chosen by the test, a real image store."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from leveret_proto.capability import Capabilities
from leveret_worker.images import ImageStore
from leveret_worker.prover import Prover
from leveret_worker.qemu import Accelerator
from tests.support.probes import ARCH, ChosenProbes, Watched, add_image, remove_image

ALLOWED = Capabilities(tags=("trusted",), memory_mib=1024, cpus=2)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


@asynccontextmanager
async def proving(
    store: ImageStore, probes: ChosenProbes, *, interval: float = 1000.0, rescan: float = 1000.0
) -> AsyncIterator[Watched]:
    """A prover at work, after its first round."""
    prover = Prover(store, probes, allowed=ALLOWED, interval=interval, rescan=rescan)
    watched = Watched(prover)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(prover.run(watched.changed))
        await prover.prove_now()
        yield watched
        running.cancel()


async def test_an_image_appears_and_disappears_with_the_store(store: ImageStore) -> None:
    async with proving(store, ChosenProbes(), rescan=0.02) as watched:
        assert watched.prover.offer.images == ()
        assert "build one" in watched.prover.notes[0]
        add_image(store, "test/one")
        await watched.until(lambda: watched.names == ["test/one"])
        assert watched.prover.offer.tags == ("trusted",)
        add_image(store, "test/two")
        await watched.until(lambda: watched.names == ["test/one", "test/two"])
        remove_image(store, "test/one")
        await watched.until(lambda: watched.names == ["test/two"])
        remove_image(store, "test/two")
        # without an image there is nothing to run under KVM
        await watched.until(lambda: watched.prover.offer.images == watched.prover.offer.kvm == ())


async def test_an_image_cut_short_is_not_offered_and_said_to_be(store: ImageStore) -> None:
    image = add_image(store, "test/one")
    async with proving(store, ChosenProbes()) as watched:
        assert watched.names == ["test/one"]
        image.disk.write_bytes(b"di")
        await watched.prover.prove_now()
        assert watched.names == []
        assert any("root.qcow2 has 2 bytes, not 4" in note for note in watched.prover.notes)
        image.disk.unlink()
        await watched.prover.prove_now()
        assert any("No such file" in note for note in watched.prover.notes)
        image.disk.write_bytes(b"disk")
        await watched.prover.prove_now()
        assert watched.names == ["test/one"]


async def test_a_capability_lost_is_withdrawn_and_one_regained_offered(store: ImageStore) -> None:
    add_image(store, "test/one")
    probes = ChosenProbes()
    async with proving(store, probes, interval=0.02) as watched:
        assert watched.prover.offer.kvm == (ARCH,)
        probes.virtualised = False
        await watched.until(lambda: watched.prover.offer.kvm == ())
        assert watched.names == ["test/one"]
        assert "tcg: not offered: chosen by the test" in watched.prover.notes
        probes.virtualised = True
        await watched.until(lambda: watched.prover.offer.kvm == (ARCH,))
        probes.emulators = False
        await watched.until(lambda: watched.names == [])


async def test_a_trial_that_fails_once_withdraws_nothing(store: ImageStore) -> None:
    add_image(store, "test/one")
    probes = ChosenProbes()
    async with proving(store, probes) as watched:
        offered, changes = watched.prover.offer, watched.changes
        probes.slips = 1
        await watched.prover.prove_now()
        assert (watched.prover.offer, watched.changes) == (offered, changes)
        probes.slips = 2
        await watched.prover.prove_now()
        assert watched.prover.offer.kvm == ()


async def test_what_was_never_proved_is_tried_once(store: ImageStore) -> None:
    add_image(store, "test/one")
    probes = ChosenProbes(virtualised=False)
    async with proving(store, probes) as watched:
        assert probes.trials == 1
        assert watched.prover.offer.kvm == ()
        assert watched.prover.accelerator(ARCH) is Accelerator.TCG
        await watched.prover.prove_now()
        assert probes.trials == 2


async def test_another_kernel_or_emulator_has_everything_tried_anew(store: ImageStore) -> None:
    add_image(store, "test/one")
    probes = ChosenProbes()
    async with proving(store, probes, rescan=0.02) as watched:
        assert watched.prover.offer.kvm == (ARCH,)
        probes.virtualised = False
        trials = probes.trials
        probes.kernel = "two"
        await watched.until(lambda: watched.prover.offer.kvm == ())
        assert probes.trials == trials + 2  # what was proved is tried twice before it falls


async def test_a_trial_asked_for_during_another_begins_after_it(store: ImageStore) -> None:
    """A guest may have failed because of something that the trial under way no longer looks at."""
    add_image(store, "test/one")
    probes = ChosenProbes()
    async with proving(store, probes) as watched:
        entered, go_on, fast = asyncio.Event(), asyncio.Event(), probes.emulator

        async def slow(image: object) -> object:
            entered.set()
            await go_on.wait()
            return await fast(image)  # type: ignore[arg-type]

        probes.emulator = slow  # type: ignore[assignment,method-assign]
        async with asyncio.TaskGroup() as group:
            first = group.create_task(watched.prover.prove_now())
            await entered.wait()
            second = group.create_task(watched.prover.prove_now())
            await asyncio.sleep(0)
            trials = probes.trials
            go_on.set()
            await first
            assert probes.trials == trials + 1
            await second
            assert probes.trials == trials + 2


async def test_a_refuted_image_is_offered_no_more_until_it_is_proved_again(store: ImageStore) -> None:
    image = add_image(store, "test/one")
    async with proving(store, ChosenProbes()) as watched:
        watched.prover.refute(image, "test/one: no initrd")
        assert watched.names == []
        assert "image test/one: no initrd" in watched.prover.notes
        await watched.prover.prove_now()
        assert watched.names == ["test/one"]
