"""Many guests at once: what they cost the worker's process, and how long so many restores take side by side."""

import asyncio
import os
import time
from contextlib import AsyncExitStack
from pathlib import Path

from bench.result import Result, median, skipped
from bench.setting import OWNER, Bench
from leveret_client import Client
from leveret_embedded.stack import Options, Stack
from leveret_proto.messages import TaskState
from leveret_worker.booting import boot_files
from leveret_worker.config import Config
from leveret_worker.executors import cage_rules
from leveret_worker.images import StoredImage, default_store
from leveret_worker.qemu import Accelerator, Cages, Templates
from leveret_worker.starting import Starter, Wanted

GUESTS = 8
#: Seconds until a guest runs its first command, a template's recording included.
LIMIT = 180.0
PREFERRED = "debian/trixie"
MEMORY = f"worker's memory with {GUESTS} guests"
RESTORES = f"{GUESTS} restores at once"
MIB = 1024 * 1024
#: The recorded guests of both measures, in the bench's folder.
TEMPLATES = "templates"


async def measure(bench: Bench) -> list[Result]:
    """Restore guests side by side in this process; then have a worker's process run as many."""
    host = os.uname().machine
    images = [image for image in default_store().images() if image.manifest.architecture == host]
    if not images:
        return [skipped(name, "s", f"no {host} image in the store; `make demo` builds one") for name in NAMES]
    image = min(images, key=lambda image: (image.manifest.name != PREFERRED, image.manifest.name))
    return [*await _restores(bench.folder, image), *await _memory(bench.folder, image)]


async def _restores(folder: Path, image: StoredImage) -> list[Result]:
    told = {"amqp_url": "amqp://unused", "name": "bench", "spool": folder / "guests", "network": "none"}
    config = Config.model_validate(told | {"isolation": "try"})
    templates = Templates(folder / TEMPLATES, disk_limit=4096 * MIB, memory_limit=1024 * MIB)
    async with Cages(cage_rules(config)) as cages:
        starter = Starter(config, cages, templates)
        boot = await boot_files(image)
        wanted = Wanted(image, boot, starter.spec(image, Accelerator.TCG))
        await starter.record_ahead(image, Accelerator.TCG)
        await _until_first_command(starter, wanted, config.spool / "warm", 1)  # loads and verifies the template
        alone = await _until_first_command(starter, wanted, config.spool, 1)
        together = await _until_first_command(starter, wanted, config.spool, GUESTS)
    taken = f"{image.manifest.name}, TCG, {os.cpu_count()} cores"
    return [
        Result(f"{RESTORES} → first command, median", median(together), "s", compared_with=taken),
        Result(f"{RESTORES} → last of the first commands", max(together), "s", compared_with=taken),
        Result(f"{RESTORES} → last, in restores of one", max(together) / alone[0], "ratio", compared_with=taken),
        Result(f"{RESTORES}: came up", len(together), "guests", GUESTS, "higher", "none was booted instead"),
    ]


async def _until_first_command(starter: Starter, wanted: Wanted, folder: Path, guests: int) -> list[float]:
    """Seconds that each of so many guests, begun at the same time, took to the end of its first command."""

    async def one(n: int) -> float:
        async with asyncio.timeout(LIMIT), AsyncExitStack() as running:
            started = await starter.start(running, wanted, folder / f"{guests}-{n}", f"bench-{n}")
            done = await started.api.run(["true"])
            seconds = time.perf_counter() - began
            if not done.status.success or "restored" not in started.how:
                raise RuntimeError(f"guest {n} was {started.how}; its first command: {done.status}")
            ready.release()
            await all_ready.wait()  # a guest that has come up makes room only when all have
            return seconds

    ready, all_ready = asyncio.Semaphore(0), asyncio.Event()
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(n)) for n in range(guests)]
        for _ in tasks:
            await ready.acquire()
        all_ready.set()
    return [task.result() for task in tasks]


async def _memory(folder: Path, image: StoredImage) -> list[Result]:
    """The memory of a worker's process while all its guests run a task that writes now and then."""
    environment = {"LEVERET_WORKER_ISOLATION": "try", "LEVERET_WORKER_TEMPLATES": str(folder / TEMPLATES)}
    options = Options(executor="qemu", slots=GUESTS, network="none", fsync=False, environment=environment)
    manifest = f"image: {image.manifest.name}\ntasks:\n- tell: while sleep 0.2; do seq 100; done\n"
    async with Stack.start(folder / "guests-stack", owner=OWNER, options=options) as stack:
        await stack.until_worker_ready()
        async with Client(stack.amqp_url, OWNER) as client, asyncio.timeout(2 * LIMIT):
            jobs = [(await client.submit(manifest, project="bench")).job for _ in range(GUESTS)]
            while not all([await _tells(client, job) for job in jobs]):
                await asyncio.sleep(0.5)
            used = _memory_of(stack.services["worker"].pid)
            for job in jobs:
                await client.cancel(job)
    shares = "memory shared with other processes counted by share (PSS)"
    return [
        Result(MEMORY, used["Rss"], "MiB", 80, compared_with="resident; the guests' own memory is QEMU's"),
        Result(f"{MEMORY}, its share", used["Pss"], "MiB", 80, compared_with=shares),
    ]


async def _tells(client: Client, job: int) -> bool:
    """Whether the job's task runs."""
    view = await client.show(job)
    if view.status.ended:
        raise RuntimeError(f"job {job} ended: {view.status} {view.reason}: {view.detail}")
    return [task.state for task in view.tasks] == [TaskState.RUNNING]


def _memory_of(pid: int) -> dict[str, float]:
    """MiB of a process's memory, resident (Rss) and by share (Pss), as proc(5) has them in `smaps_rollup`."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    fields = {line.split(":")[0]: line.split()[1] for line in lines[1:]}
    return {name: int(fields[name]) / 1024 for name in ("Rss", "Pss")}


NAMES = (RESTORES, MEMORY)
