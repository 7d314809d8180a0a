"""Control groups of version 2 as they are: in a guest, whose kernel has them whatever the host has.

The two modules that deal with groups go into the guest as they are, and a worker of a few lines uses them there.
"""

from pathlib import Path

import pytest

from leveret_worker.qemu import cgroup, groups
from tests.support.guest_images import booted, stored_image

pytestmark = [pytest.mark.vm, pytest.mark.image("debian/trixie"), pytest.mark.slow, pytest.mark.timeout(900)]

WORKER = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, "/tmp/modules")
from leveret_worker.qemu.cgroup import Limits
from leveret_worker.qemu.groups import Groups

top = Path("/sys/fs/cgroup/worker.service")
JOIN = 'for f; do echo $$ >"$f"; done; exec python3 "$PROGRAM"'

async def run(files, program):
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", JOIN, "sh", *map(str, files), env={**os.environ, "PROGRAM": program}, stdout=asyncio.subprocess.PIPE
    )
    line = await process.stdout.readline()
    return process, line.decode().strip()

async def main():
    found = Groups.open()
    mine = top / f"leveret-{os.getpid()}"
    print("worker in", Path("/proc/self/cgroup").read_text().strip().removeprefix("0::"))
    async with found.group("m1", Limits(memory=32 << 20, cpus=0.5, weight=1, tasks=20)) as files:
        for name in ("memory.max", "memory.swap.max", "cpu.max", "cpu.weight", "pids.max"):
            file = mine / "m1" / name
            print(name, file.read_text().strip() if file.exists() else "0")
        process, line = await run(files, "/tmp/hog.py")
        print("hog", line or "-", await process.wait())
        process, line = await run(files, "/tmp/forks.py")
        print("forks", line)
    print("gone", not (mine / "m1").exists())

asyncio.run(main())
"""

HOG = b"kept = bytearray(64 << 20); print('too much')"
FORKS = b"""
import os, signal
try:
    for _ in range(50):
        if os.fork() == 0:
            signal.pause()
except OSError as error:
    print(error.strerror, flush=True)
    signal.pause()
"""

START = """
set -e
mkdir -p /tmp/modules/leveret_worker/qemu
mount -t cgroup2 none /sys/fs/cgroup
mkdir /sys/fs/cgroup/worker.service
echo "+cpu +memory +pids" >/sys/fs/cgroup/cgroup.subtree_control
"""


async def test_a_machine_is_bounded_by_groups_of_version_2(tmp_path: Path) -> None:
    async with booted(stored_image("debian/trixie"), tmp_path) as (_, guest):
        started = await guest.run(START)
        assert started.status.success, started.stderr
        for module in (cgroup, groups):
            assert module.__file__ is not None
            source = Path(module.__file__)
            await guest.write_file(f"/tmp/modules/leveret_worker/qemu/{source.name}", source.read_bytes())
        for name, program in (("worker", WORKER.encode()), ("hog", HOG), ("forks", FORKS)):
            await guest.write_file(f"/tmp/{name}.py", program)
        done = await guest.run("echo $$ >/sys/fs/cgroup/worker.service/cgroup.procs; exec python3 /tmp/worker.py")
    assert done.status.success, done.stderr.decode()
    said = done.stdout.decode().splitlines()
    assert said[0].startswith("worker in /worker.service/leveret-") and said[0].endswith("/worker")
    assert said[1:] == [
        "memory.max 33554432",
        "memory.swap.max 0",
        "cpu.max 50000 100000",
        "cpu.weight 100",
        "pids.max 20",
        "hog - -9",
        "forks Resource temporarily unavailable",
        "gone True",
    ]
