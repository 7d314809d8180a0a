"""Which control group bounds a machine, by what; and the thin part that writes it, against made-up trees."""

import os
from pathlib import Path

import pytest

from leveret_worker.qemu.cgroup import Hierarchy, Limits, hierarchies, settings, usable
from leveret_worker.qemu.groups import Groups, NoGroupsError

LIMITS = Limits(memory=1 << 30, cpus=2.5, weight=2, tasks=130)

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = """31 23 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 23 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 23 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
34 23 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
35 23 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
36 23 0:32 / /proc rw - proc proc rw
"""
IN_V1 = """12:pids:/a
9:cpu,cpuacct:/a
4:memory:/a/b
1:name=systemd:/
0::/c
"""


def test_version_2_is_one_hierarchy() -> None:
    (found,) = hierarchies(V2, "0::/system.slice/leveret-worker.service\n")
    assert found == Hierarchy(2, frozenset(), Path("/sys/fs/cgroup/system.slice/leveret-worker.service"))


def test_version_1_is_one_for_each_set_of_controllers() -> None:
    found = {one.group: one.controllers for one in hierarchies(V1, IN_V1) if one.version == 1}
    assert found[Path("/sys/fs/cgroup/cpu,cpuacct/a")] == {"cpu", "cpuacct"}
    assert found[Path("/sys/fs/cgroup/memory/a/b")] == {"memory"}
    assert found[Path("/sys/fs/cgroup/pids/a")] == {"pids"}


def test_a_container_sees_its_part_of_the_tree() -> None:
    mount = "30 23 0:26 /docker/7f /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    (found,) = hierarchies(mount, "0::/docker/7f/worker\n")
    assert found.group == Path("/sys/fs/cgroup/worker")
    assert hierarchies(mount, "0::/docker/8a\n") == ()
    assert hierarchies(mount, "0::/../8a\n") == ()
    assert hierarchies("30 23 0:26 / /a\\040b rw - cgroup2 none rw\n", "0::/\n")[0].group == Path("/a b")


def test_version_2_is_used_where_it_has_what_is_needed() -> None:
    found = hierarchies(V1, IN_V1)
    assert {one.version for one in usable(found, ["cpu", "io", "memory", "pids"])} == {2}
    assert {one.version for one in usable(found, ["hugetlb"])} == {1}
    assert all(one.controllers & {"cpu", "memory", "pids", "blkio"} for one in usable(found, []))


def test_limits_are_written_in_each_versions_words() -> None:
    (unified,) = hierarchies(V2, "0::/\n")
    written = {one.file: one.value for one in settings(unified, LIMITS)}
    assert written == {
        "memory.max": "1073741824",
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "cpu.max": "250000 100000",
        "cpu.weight": "200",
        "pids.max": "130",
        "io.weight": "default 200",
    }
    old = [one for one in hierarchies(V1, IN_V1) if one.version == 1]
    written = {setting.file: setting.value for one in old for setting in settings(one, LIMITS)}
    assert written == {
        "memory.limit_in_bytes": "1073741824",
        "memory.memsw.limit_in_bytes": "1073741824",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "250000",
        "cpu.shares": "2048",
        "pids.max": "130",
    }


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """A made-up host with version 2, whose worker is a service that was delegated a group: its directory in proc."""
    group = tmp_path / "cgroup" / "worker.service"
    group.mkdir(parents=True)
    (group / "cgroup.controllers").write_text("cpu io memory pids\n")
    (group / "cgroup.subtree_control").touch()
    process = tmp_path / "proc"
    process.mkdir()
    (process / "mountinfo").write_text(f"30 23 0:26 / {tmp_path}/cgroup rw - cgroup2 cgroup2 rw\n")
    (process / "cgroup").write_text("0::/worker.service\n")
    return process


async def test_with_version_2_the_worker_moves_aside_and_machines_get_controllers(
    service: Path, tmp_path: Path
) -> None:
    top = tmp_path / "cgroup" / "worker.service"
    groups = Groups.open(service)
    mine = top / f"leveret-{os.getpid()}"
    assert (mine / "worker" / "cgroup.procs").read_text() == str(os.getpid())
    for group in (top, mine):
        assert (group / "cgroup.subtree_control").read_text() == "+cpu +memory +pids +io"
    async with groups.group("m1", LIMITS) as join:
        assert join == (mine / "m1" / "cgroup.procs",)
        assert (mine / "m1" / "memory.max").read_text() == "1073741824"
        # here its files stay, which a real group takes along
        for file in (mine / "m1").iterdir():
            file.unlink()
    assert not (mine / "m1").exists()
    (service / "cgroup").write_text(f"0::/worker.service/{mine.name}/worker\n")
    again = Groups.open(service)
    assert sorted(one.name for one in top.glob("leveret-*")) == [mine.name]
    again.close()
    groups.close()


def test_a_host_without_usable_groups_says_what_to_do(service: Path) -> None:
    (service / "mountinfo").write_text("36 23 0:32 / /proc rw - proc proc rw\n")
    with pytest.raises(NoGroupsError, match=r"cpu, memory, pids.*Delegate=yes"):
        Groups.open(service)
