"""Whether the storage takes more: by its free bytes, and by trial after a failure."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_logsink import space
from leveret_logsink.space import Condition, Space, judged
from leveret_logsink.storage import Storage, StorageAway, StorageFull

FLOOR = 80
LIMIT = 10.0


class Disk(Storage):
    """A storage on a disk whose free bytes a test sets; a trial fails `failures` times."""

    def __init__(self, root: Path, free: int = 1000) -> None:
        super().__init__(root)
        self.left = free
        self.failures = 0
        self.trials = 0

    def free(self) -> int:
        return self.left

    def try_room(self, size: int) -> None:
        self.trials += 1
        if self.failures:
            self.failures -= 1
            raise StorageFull("storage: no inode is left")


@pytest.mark.parametrize(
    ("is_open", "free", "opens"),
    [(True, 80, True), (True, 79, False), (False, 80, False), (False, 89, False), (False, 90, True)],
)
def test_it_closes_below_the_floor_and_opens_with_some_to_spare(is_open: bool, free: int, opens: bool) -> None:
    now = judged(Condition(0, FLOOR, "" if is_open else "closed"), free)
    assert (now.open, now.free, now.floor) == (opens, free, FLOOR)
    assert opens or str(free) in now.why


@given(st.lists(st.integers(79, 90), max_size=50))
def test_it_does_not_flutter_where_the_free_bytes_waver_about_the_floor(free: list[int]) -> None:
    conditions = [Condition(None, FLOOR)]
    for now in free:
        conditions.append(judged(conditions[-1], now))
    changes = sum(one.open != other.open for one, other in pairwise(conditions))
    assert changes <= 1 + 2 * free.count(90)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "INTERVAL", 0.005)
    monkeypatch.setattr(space, "FIRST_WAIT", 0.005)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not true():
            await asyncio.sleep(0.002)


@pytest.mark.usefixtures("quick")
async def test_it_opens_by_itself_when_there_is_room_again(tmp_path: Path) -> None:
    disk, closed, stop = Disk(tmp_path), [], asyncio.Event()
    watched = Space(disk, FLOOR, lambda: closed.append(1))
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        group.create_task(watched.run(stop))
        assert await watched.room(stop)
        disk.left = 10
        await until(lambda: not watched.condition.open)
        waiting = group.create_task(watched.room(stop))
        disk.left = 1000
        assert await waiting
        assert (len(closed), disk.trials) == (1, 1)
        stop.set()


@pytest.mark.usefixtures("quick")
async def test_after_a_failure_it_opens_when_a_trial_goes_well(tmp_path: Path) -> None:
    disk, closed, stop = Disk(tmp_path), [], asyncio.Event()
    watched = Space(disk, FLOOR, lambda: closed.append(1))
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        group.create_task(watched.run(stop))
        disk.failures = 3
        watched.failed(StorageFull("storage: No space left on device"))
        assert "No space left" in watched.condition.why
        assert await watched.room(stop)
        assert (len(closed), disk.trials) == (1, 4)
        stop.set()


async def test_a_storage_that_is_away_takes_nothing(tmp_path: Path) -> None:
    class Gone(Disk):
        def free(self) -> int:
            raise StorageAway("storage: Stale file handle")

    watched = Space(Gone(tmp_path), FLOOR, lambda: None)
    await watched.look()
    assert watched.condition == Condition(None, FLOOR, "storage: Stale file handle")


async def test_waiting_for_room_ends_with_the_service(tmp_path: Path) -> None:
    watched, stop = Space(Disk(tmp_path, free=1), FLOOR, lambda: None), asyncio.Event()
    await watched.look()
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        waiting = group.create_task(watched.room(stop))
        stop.set()
        assert not await waiting
