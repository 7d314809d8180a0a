"""Cages of real processes: what they see, what they may take, how they end."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from leveret_worker.qemu import Cage, CageRules, Cages, MachineError, MachineSpec, Network
from leveret_worker.qemu.cage import host_resolver
from leveret_worker.qemu.groups import Groups, NoGroupsError
from tests.support.confining import whole
from tests.support.processes import descendants, until_gone

SPEC = MachineSpec("x86_64", "q35", "max", "ttyS0", memory_mib=64)
LIMIT = 60.0


@asynccontextmanager
async def caged(rules: CageRules | None = None) -> AsyncIterator[Cage]:
    async with Cages(rules) as cages, cages.cage("test", SPEC, Network.NONE) as cage:
        yield cage


async def run(cage: Cage, script: str, *, status: int = 0, descriptors: Sequence[int] = ()) -> str:
    """What a shell script prints in the cage."""
    command = cage.command(["sh", "-c", script])
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=(*descriptors, *cage.descriptors),
    )
    async with asyncio.timeout(LIMIT):
        output, errors = await process.communicate()
    assert process.returncode == status, errors.decode()
    return output.decode()


@whole
async def test_it_has_no_capability_and_can_gain_none() -> None:
    async with caged() as cage:
        lines = (await run(cage, "cat /proc/self/status")).splitlines()
    status = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert status[kind] == ["0" * 16]
    assert status["NoNewPrivs"] == ["1"]
    assert status["Groups"] == []


@whole
async def test_it_has_namespaces_of_its_own_and_makes_no_more() -> None:
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
    ours = [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]
    async with caged() as cage:
        theirs = (await run(cage, f"for kind in {' '.join(kinds)}; do readlink /proc/self/ns/$kind; done")).split()
        assert not set(ours) & set(theirs)
        refused = "! unshare --user true 2>&1"
        assert "unshare failed" in await run(cage, refused)


@whole
async def test_of_the_host_it_sees_its_programs_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEVERET_WORKER_AMQP_URL", "amqp://w1:password@host/")
    (tmp_path / "secret").write_text("of the host")
    async with caged() as cage:
        assert set((await run(cage, "ls /")).split()) == {"bin", "dev", "etc", "lib", "lib64", "proc", "sbin", "usr"}
        assert "leveret" not in (await run(cage, "cat /proc/[0-9]*/environ")).lower()
        processes = (await run(cage, "cat /proc/[0-9]*/comm")).split()
        assert set(processes) <= {"bwrap", "sh", "cat"}
        assert await run(cage, f"cat {tmp_path}/secret 2>/dev/null || echo absent") == "absent\n"
        for place in ("/", "/dev/", "/dev/shm/", "/usr/", "/etc/"):
            assert await run(cage, f"touch {place}x 2>/dev/null || echo refused") == "refused\n", place


@whole
async def test_no_network_is_no_network() -> None:
    async with caged() as cage:
        assert (await run(cage, "tail -n +3 /proc/net/dev | cut -d : -f 1")).split() == ["lo"]
        assert await run(cage, "cat /proc/net/route | wc -l") == "1\n"


@whole
async def test_a_file_that_grows_too_big_is_an_error_to_its_writer_and_not_its_end(tmp_path: Path) -> None:
    file = os.open(tmp_path / "disk", os.O_CREAT | os.O_RDWR)
    try:
        async with caged(CageRules(disk_mib=64)) as cage:
            writer = f"import os; [os.write({file}, bytes(1 << 20)) for _ in range(100)]"
            said = await run(cage, f"/usr/bin/python3 -c '{writer}' 2>&1", status=1, descriptors=[file])
        assert "File too large" in said
        assert os.fstat(file).st_size == 64 * 1024 * 1024
    finally:
        os.close(file)


HOG = "import mmap; m = mmap.mmap(-1, 4 << 30); [m.__setitem__(n, 1) for n in range(0, 4 << 30, 4096)]"


@whole
async def test_memory_beyond_the_machines_is_not_to_be_had() -> None:
    async with caged() as cage:
        assert "Killed" in await run(cage, f"/usr/bin/python3 -c '{HOG}' 2>&1; echo $? | sed s/137/Killed/")


@whole
async def test_processes_beyond_the_machines_are_not_to_be_had() -> None:
    bomb = "n=0; while [ $n -lt 300 ]; do sleep 60 & n=$((n+1)); done 2>/dev/null; echo all"
    async with caged() as cage:
        assert "all" not in await run(cage, bomb, status=2)


@whole
async def test_killing_what_was_started_ends_all_in_it() -> None:
    async with caged() as cage:
        process = await asyncio.create_subprocess_exec(
            *cage.command(["sh", "-c", "trap '' TERM INT HUP; setsid sleep 600 & setsid sleep 600"])
        )
        try:
            async with asyncio.timeout(LIMIT):
                while sum(name.startswith("sleep") for name in map(_name, descendants(process.pid))) < 2:
                    await asyncio.sleep(0.01)
            inside = descendants(process.pid)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()
        await until_gone(inside)


def _name(process: int) -> str:
    try:
        return Path(f"/proc/{process}/comm").read_text()
    except OSError:
        return ""


WORKER = """
import asyncio, sys
from leveret_worker.qemu.groups import Groups
from leveret_worker.qemu.cgroup import Limits

async def main():
    groups = Groups.open()
    async with groups.group("left", Limits(1 << 28, 1.0, 1, 50)) as files:
        join = 'for f; do echo $$ >"$f"; done; exec setsid sleep 600 >/dev/null'
        process = await asyncio.create_subprocess_exec("sh", "-c", join, "sh", *map(str, files))
        while "sleep" not in open(f"/proc/{process.pid}/comm").read():
            await asyncio.sleep(0.01)
        print(process.pid, files[0].parent.parent, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@whole
async def test_what_a_killed_worker_left_is_ended_by_the_next_one_and_a_live_worker_is_let_be() -> None:
    workers = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", WORKER, stdout=asyncio.subprocess.PIPE)
        for _ in range(2)
    ]
    try:
        said = []
        async with asyncio.timeout(LIMIT):
            for worker in workers:
                assert worker.stdout is not None
                said.append((await worker.stdout.readline()).decode().split())
        (left, its_group), (kept, live_group) = ((int(pid), Path(group)) for pid, group in said)
        workers[0].kill()
        await workers[0].wait()
        assert Path(f"/proc/{left}").exists()
        Groups.open().close()
        await until_gone([left])
        assert not its_group.exists()
        assert Path(f"/proc/{kept}").exists()
        assert live_group.exists()
    finally:
        for worker in workers:
            if worker.returncode is None:
                worker.kill()
            await worker.communicate()
        Groups.open().close()
    await until_gone([kept])
    assert not live_group.exists()


@whole
async def test_a_groups_values_are_as_set_and_it_is_gone_afterwards() -> None:
    async with Cages() as cages:
        async with cages.cage("test", SPEC, Network.NONE):
            assert cages._groups is not None
            made = [base.directory / "test" for base in cages._groups._bases]
            values = {file.name: file.read_text().strip() for one in made for file in one.iterdir() if _readable(file)}
            assert str((2 * 64 + 512) << 20) in (values.get("memory.max"), values.get("memory.limit_in_bytes"))
            assert "150000" in (values.get("cpu.max", "").split(" ")[0], values.get("cpu.cfs_quota_us"))
            assert values["pids.max"] == "129"
        assert [one for one in made if one.exists()] == []


def _readable(file: Path) -> bool:
    return file.name in {"memory.max", "memory.limit_in_bytes", "cpu.max", "cpu.cfs_quota_us", "pids.max"}


async def test_where_isolation_is_required_a_host_that_can_not_gives_no_cage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object) -> Groups:
        raise NoGroupsError("no control group for memory to be had")

    monkeypatch.setattr(Groups, "open", refuse)
    async with Cages(CageRules(required=True)) as cages:
        assert "no control group for memory" in (cages.refusal or "")
        with pytest.raises(MachineError, match="no control group for memory"):
            async with cages.cage("test", SPEC, Network.NONE):
                pass
    async with Cages() as cages:
        assert cages.refusal is None
        assert any("no control group for memory" in note for note in cages.notes)
        async with cages.cage("test", SPEC, Network.NONE) as cage:
            assert await run(cage, "echo runs all the same") == "runs all the same\n"


async def test_without_namespaces_a_process_is_still_bounded_and_stripped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leveret_worker.qemu.cage.secluded", lambda *_, **__: ["false"])
    async with Cages(CageRules(network=Network.EGRESS)) as cages:
        assert cages.network is Network.NONE  # never more than was asked for
        assert any("instead of egress" in note for note in cages.notes)
        async with cages.cage("test", SPEC, cages.network) as cage:
            lines = (await run(cage, "cat /proc/self/status; env")).splitlines()
    status = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
    assert status["CapEff"] == ["0" * 16]
    assert status["NoNewPrivs"] == ["1"]
    assert not any("LEVERET" in line for line in lines)


def test_a_host_without_a_resolver_of_its_own_gives_its_guests_none(tmp_path: Path) -> None:
    assert host_resolver(tmp_path / "resolv.conf") == ""
    (tmp_path / "resolv.conf").write_bytes(b"nameserver 192.0.2.1\n")
    assert host_resolver(tmp_path / "resolv.conf") == "nameserver 192.0.2.1\n"
