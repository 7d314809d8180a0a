"""The templates of a host: recorded once, shared, verified, thrown away, bounded; recorders of the test's own."""

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from leveret_worker.qemu import MachineError, Origin, RecordedFiles, Template, Templates, template_files
from leveret_worker.qemu.memory import new_memory
from leveret_worker.qemu.template import write
from leveret_worker.qemu.template_files import UNUSED_LIMIT, recording
from leveret_worker.qemu.templates import TRIES

MIB = 1024 * 1024
LIMIT = 20.0


def origin(image: str = "a" * 64, *, initrd: str = "b" * 64) -> Origin:
    return Origin(format=1, image=image, initrd=initrd, emulator="qemu 1", host="", arguments=("qemu",))


class Recorder:
    """Records a machine that never ran; fails while `fault` says so, waits while `gate` is closed."""

    def __init__(self) -> None:
        self.calls = 0
        self.fault: str | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.began = asyncio.Event()

    async def __call__(self, work: Path) -> RecordedFiles:
        self.calls += 1
        self.began.set()
        await self.gate.wait()
        if self.fault:
            raise MachineError(self.fault)
        memory = new_memory(4 * MIB)
        os.pwrite(memory, os.urandom(MIB), 0)
        (work / "disk.qcow2").write_bytes(b"disk")
        return write(work, memory, b"state", 4 * MIB)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def templates(tmp_path: Path) -> AsyncIterator[Templates]:
    before = set(os.listdir("/proc/self/fd"))
    made = Templates(tmp_path / "templates", disk_limit=100 * MIB, memory_limit=100 * MIB)
    async with asyncio.timeout(LIMIT):
        yield made
    made.close()
    assert set(os.listdir("/proc/self/fd")) <= before


def other_process(templates: Templates, *, disk_limit: int = 100 * MIB, memory_limit: int = 100 * MIB) -> Templates:
    """The same directory, as another worker has it."""
    return Templates(templates.root, disk_limit=disk_limit, memory_limit=memory_limit)


async def take(templates: Templates, wanted: Origin, recorder: Recorder) -> Template | None:
    """Use it for no time."""
    async with templates.using(wanted, recorder) as template:
        return template


async def test_it_is_recorded_on_first_use_and_then_shared(templates: Templates, recorder: Recorder) -> None:
    first = await take(templates, origin(), recorder)
    assert first is not None
    assert first.state == b"state"
    assert await take(templates, origin(), recorder) is first
    again = other_process(templates)
    assert await take(again, origin(), recorder) is not None
    again.close()
    assert recorder.calls == 1
    assert [path.name for path in templates.root.glob("*/")] == [origin().key]


async def test_it_can_be_recorded_ahead_and_takes_no_memory_then(templates: Templates, recorder: Recorder) -> None:
    before = len(os.listdir("/proc/self/fd"))
    await templates.prepare(origin(), recorder)
    assert len(os.listdir("/proc/self/fd")) == before
    await templates.prepare(origin(), recorder)
    assert await take(templates, origin(), recorder) is not None
    assert recorder.calls == 1


async def test_a_template_in_use_stays_when_it_is_prepared_again(templates: Templates, recorder: Recorder) -> None:
    async with templates.using(origin(), recorder) as template:
        assert template is not None
        await templates.prepare(origin(), recorder)
        os.fstat(template.memory)


async def test_who_comes_while_it_is_recorded_waits_for_it(templates: Templates, recorder: Recorder) -> None:
    recorder.gate.clear()
    async with asyncio.TaskGroup() as group:
        takers = [group.create_task(take(templates, origin(), recorder)) for _ in range(5)]
        await recorder.began.wait()
        recorder.gate.set()
    assert recorder.calls == 1
    assert len({id(taker.result()) for taker in takers}) == 1


async def test_whatever_differs_has_a_template_of_its_own(templates: Templates, recorder: Recorder) -> None:
    fields = {
        "image": "c" * 64,
        "initrd": "c" * 64,
        "emulator": "qemu 2",
        "host": "other",
        "arguments": ("x",),
        "format": 2,
    }
    keys = {origin().model_copy(update={name: value}).key for name, value in fields.items()} | {origin().key}
    assert len(keys) == len(fields) + 1
    one = await take(templates, origin(), recorder)
    assert await take(templates, origin(initrd="c" * 64), recorder) is not one
    assert recorder.calls == 2


async def test_while_another_is_recorded_there_is_none(templates: Templates, recorder: Recorder) -> None:
    templates.root.mkdir()
    with recording(templates.root) as alone:
        assert alone
        assert await take(templates, origin(), recorder) is None
    assert await take(templates, origin(), recorder) is not None


@pytest.mark.parametrize("name", ["disk.qcow2", "memory", "state", "manifest.json"])
async def test_what_was_changed_is_thrown_away_and_recorded_anew(
    templates: Templates, recorder: Recorder, name: str
) -> None:
    await take(templates, origin(), recorder)
    with (templates.root / origin().key / name).open("r+b") as stream:
        stream.write(b"X")
    again = other_process(templates)
    assert await take(again, origin(), recorder) is not None
    again.close()
    assert recorder.calls == 2


async def test_a_disk_that_changes_later_is_noticed_at_the_next_use(templates: Templates, recorder: Recorder) -> None:
    async with templates.using(origin(), recorder) as template:
        assert template is not None
        template.disk.write_bytes(b"other")
        replaced = await take(templates, origin(), recorder)
        assert replaced is not None and replaced is not template
        os.fstat(template.memory)  # whose machine still runs keeps what it has
    assert recorder.calls == 2
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(template.memory)


async def test_a_manifest_of_another_origin_is_not_believed(templates: Templates, recorder: Recorder) -> None:
    await take(templates, origin(), recorder)
    other = origin(initrd="c" * 64)
    os.rename(templates.root / origin().key, templates.root / other.key)
    again = other_process(templates)
    assert await take(again, other, recorder) is not None
    again.close()
    assert recorder.calls == 2


async def test_recording_that_fails_is_given_up_until_the_next_sweep(templates: Templates, recorder: Recorder) -> None:
    recorder.fault = "no agent"
    for _ in range(TRIES + 3):
        assert await take(templates, origin(), recorder) is None
    assert recorder.calls == TRIES
    await templates.prepare(origin(), recorder)
    assert recorder.calls == TRIES
    assert list(templates.root.glob("*/")) == []
    recorder.fault = None
    await templates.sweep({origin().image})
    assert await take(templates, origin(), recorder) is not None


async def test_templates_that_no_machine_goes_on_from_are_given_up(templates: Templates, recorder: Recorder) -> None:
    for _ in range(TRIES):
        assert await take(templates, origin(), recorder) is not None
        await templates.discard(origin(), "it did not answer")
        assert not (templates.root / origin().key).exists()
    assert await take(templates, origin(), recorder) is None
    assert recorder.calls == TRIES


async def test_success_makes_failures_forgotten(templates: Templates, recorder: Recorder) -> None:
    for _ in range(TRIES * 2):
        assert await take(templates, origin(), recorder) is not None
        templates.succeeded(origin())
        await templates.discard(origin(), "it did not answer")


async def test_a_cancelled_recording_leaves_nothing(templates: Templates, recorder: Recorder) -> None:
    recorder.gate.clear()
    async with asyncio.TaskGroup() as group:
        taker = group.create_task(take(templates, origin(), recorder))
        await recorder.began.wait()
        taker.cancel()
    assert list(templates.root.glob("*/")) == []
    recorder.gate.set()
    assert await take(templates, origin(), recorder) is not None


async def test_sweeping_takes_what_is_of_no_use(templates: Templates, recorder: Recorder) -> None:
    kept, gone, old = origin(), origin(image="c" * 64), origin(initrd="d" * 64)
    for one in (kept, gone, old):
        await take(templates, one, recorder)
    past = time.time() - UNUSED_LIMIT - 10
    os.utime(templates.root / old.key, (past, past))
    (templates.root / "work-1").mkdir()
    (templates.root / "gone-1").mkdir()
    (templates.root / ("e" * 64)).mkdir()
    await templates.sweep({kept.image})
    assert [path.name for path in templates.root.glob("*/")] == [kept.key]


async def test_sweeping_takes_nothing_that_is_used(templates: Templates, recorder: Recorder) -> None:
    another = other_process(templates)
    async with templates.using(origin(), recorder) as here, another.using(origin(image="c" * 64), recorder) as there:
        assert here is not None and there is not None
        await templates.sweep(set())
        assert here.disk.exists() and there.disk.exists()
    another.close()
    await templates.sweep(set())
    assert list(templates.root.glob("*/")) == []


async def test_sweeping_leaves_a_recording_alone(templates: Templates, recorder: Recorder) -> None:
    recorder.gate.clear()
    async with asyncio.TaskGroup() as group:
        taker = group.create_task(take(templates, origin(), recorder))
        await recorder.began.wait()
        await other_process(templates).sweep({origin().image})
        recorder.gate.set()
    assert taker.result() is not None


async def test_the_longest_unused_go_over_the_limit_of_the_disk(templates: Templates, recorder: Recorder) -> None:
    origins = [origin(initrd=str(number) * 64) for number in range(4)]
    for age, one in enumerate(reversed(origins)):
        await take(templates, one, recorder)
        moment = time.time() - 1000 + age
        templates.close()
        os.utime(templates.root / one.key, (moment, moment))
    await other_process(templates, disk_limit=5 * MIB // 2).sweep({origin().image})
    assert {path.name for path in templates.root.glob("*/")} == {one.key for one in origins[:2]}


async def test_memory_is_let_go_over_its_limit_but_not_what_is_used(templates: Templates, recorder: Recorder) -> None:
    small = other_process(templates, memory_limit=MIB)
    async with small.using(origin(), recorder) as used:
        assert used is not None
        one = await take(small, origin(initrd="c" * 64), recorder)
        two = await take(small, origin(initrd="d" * 64), recorder)
        assert one is not None and two is not None
        os.fstat(used.memory)
        os.fstat(two.memory)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(one.memory)
    small.close()


async def test_where_nothing_can_be_written_there_is_no_template(tmp_path: Path, recorder: Recorder) -> None:
    (tmp_path / "file").touch()
    templates = Templates(tmp_path / "file" / "templates", disk_limit=MIB, memory_limit=MIB)
    assert await take(templates, origin(), recorder) is None
    await templates.sweep({origin().image})


async def test_a_template_that_is_being_removed_is_not_used(templates: Templates, recorder: Recorder) -> None:
    await take(templates, origin(), recorder)
    templates.close()
    lock = os.open(templates.root / origin().key, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        assert await take(templates, origin(), recorder) is None
    finally:
        os.close(lock)
    assert await take(templates, origin(), recorder) is not None


async def test_a_template_that_another_process_removes_while_it_is_loaded_leaves_nothing_open(
    templates: Templates, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    await take(templates, origin(), recorder)
    templates.close()
    before = _open_memories()
    load = template_files.load

    def removed(directory: Path, files: RecordedFiles) -> Template:
        monkeypatch.setattr(template_files, "load", load)
        loaded = load(directory, files)
        template_files.remove(directory)
        return loaded

    monkeypatch.setattr(template_files, "load", removed)
    assert await take(templates, origin(), recorder) is not None
    assert recorder.calls == 2
    assert len(_open_memories() - before) == 1


def _open_memories() -> set[str]:
    """The descriptors of guests' memories; tests before this one may have left some."""
    return {path.name for path in Path("/proc/self/fd").iterdir() if "guest-memory" in os.path.realpath(path)}
