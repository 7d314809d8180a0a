"""Templates are recorded ahead for what is proved, and swept of what is gone: a real store and prover, no machine."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from leveret_proto.capability import Capabilities
from leveret_worker.images import ImageStore, StoredImage
from leveret_worker.keeper import Keeper
from leveret_worker.prover import Prover
from leveret_worker.qemu import Accelerator, MachineError, Templates
from leveret_worker.starting import Starter
from tests.support.probes import ChosenProbes, add_image, remove_image

LIMIT = 20.0


class StarterPlayed:
    """Notes what is to be recorded; the image named in `refused` can't be."""

    def __init__(self) -> None:
        self.recorded = asyncio.Queue[tuple[str, Accelerator]]()
        self.refused = ""

    async def record_ahead(self, image: StoredImage, accelerator: Accelerator) -> None:
        await self.recorded.put((image.manifest.name, accelerator))
        if image.manifest.name == self.refused:
            raise MachineError("no emulator")


class TemplatesPlayed:
    """Notes what is swept."""

    def __init__(self) -> None:
        self.swept = asyncio.Queue[set[str]]()

    async def sweep(self, images: set[str]) -> None:
        await self.swept.put(images)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


@asynccontextmanager
async def keeping(
    store: ImageStore, *, ahead: bool = True
) -> AsyncIterator[tuple[Keeper, StarterPlayed, TemplatesPlayed, Prover]]:
    """A keeper at work beside a prover that looks at the store all the time."""
    prover = Prover(store, ChosenProbes(virtualised=False), allowed=Capabilities(), interval=1000.0, rescan=0.02)
    starter, templates = StarterPlayed(), TemplatesPlayed()
    keeper = Keeper(store, prover, cast(Starter, starter), cast(Templates, templates), ahead=ahead, interval=1000.0)
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        tasks = [group.create_task(prover.run(keeper.look)), group.create_task(keeper.run())]
        yield keeper, starter, templates, prover
        for task in tasks:
            task.cancel()


async def test_what_is_proved_is_recorded_and_what_is_gone_is_swept(store: ImageStore) -> None:
    first = add_image(store, "test/one")
    async with keeping(store) as (_, starter, templates, _):
        assert await starter.recorded.get() == ("test/one", Accelerator.TCG)
        second = add_image(store, "test/two", b"other disk")
        while await starter.recorded.get() != ("test/two", Accelerator.TCG):
            pass
        remove_image(store, "test/one")
        while await templates.swept.get() != {second.digest}:
            pass
        assert first.digest != second.digest


async def test_one_image_that_cannot_be_recorded_keeps_no_other_from_it(store: ImageStore) -> None:
    add_image(store, "test/one")
    add_image(store, "test/two", b"other disk")
    async with keeping(store) as (_, starter, _, _):
        starter.refused = "test/one"
        while await starter.recorded.get() != ("test/two", Accelerator.TCG):
            pass


async def test_nothing_is_recorded_ahead_where_that_is_not_wanted(store: ImageStore) -> None:
    image = add_image(store, "test/one")
    async with keeping(store, ahead=False) as (keeper, starter, templates, prover):
        await prover.prove_now()
        keeper.look()
        while await templates.swept.get() != {image.digest}:
            pass
        keeper.look()
        await templates.swept.get()
        assert starter.recorded.empty()
