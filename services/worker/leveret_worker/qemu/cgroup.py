"""Control groups (cgroups(7), versions 1 and 2): which file of which group bounds a machine. Pure: `groups` does it.

Only the standard library is imported, as in `groups`: a test runs both in a guest that has version 2.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

NEEDED = ("cpu", "memory", "pids")
"""Controllers without which a machine is not bounded. `io` is used where it is to be had."""

_PERIOD = 100_000
"""Microseconds over which processor time is counted, the kernel's default."""


@dataclass(frozen=True)
class Limits:
    """The most one machine may take from its host."""

    memory: int
    """Bytes, QEMU's own included. Beyond it nothing is swapped: the kernel ends the machine."""
    cpus: float
    """Processors' worth of time."""
    weight: int
    """Its share when processors or disks are short, beside that of other machines; 1 is the least."""
    tasks: int
    """Processes and threads on the host. Those inside the guest are none of the host's."""


@dataclass(frozen=True)
class Hierarchy:
    """A mounted hierarchy of groups, and this process's place in it."""

    version: int
    controllers: frozenset[str]
    """Empty for version 2, where the group's own file `cgroup.controllers` tells."""
    group: Path
    """The directory of the group that this process is in."""


@dataclass(frozen=True)
class Setting:
    """What is written into one file of a machine's group."""

    file: str
    value: str
    needed: bool = True
    """False: left out where the kernel has no such file."""


def hierarchies(mounts: str, membership: str) -> tuple[Hierarchy, ...]:
    """Where this process stands in each hierarchy.

    Args:
        mounts: the text of `/proc/self/mountinfo`.
        membership: the text of `/proc/self/cgroup`.
    """
    places: dict[frozenset[str], str] = {}
    for line in membership.splitlines():
        _, names, place = line.split(":", 2)
        places[frozenset(names.split(",")) - {""}] = place
    found = []
    for line in mounts.splitlines():
        mounted, _, source = line.partition(" - ")
        kind, _, options = source.split(" ", 2)
        if kind not in ("cgroup", "cgroup2"):
            continue
        root, mountpoint = mounted.split(" ")[3:5]
        # Version 1 names a hierarchy's controllers among the mount's options.
        words = frozenset(options.split(","))
        controllers = max((key for key in places if key <= words), key=len, default=frozenset[str]())
        standing = places.get(controllers)
        if standing is None or (kind == "cgroup" and not controllers):
            continue
        group = _below(root, standing)
        if group is not None:
            version = 2 if kind == "cgroup2" else 1
            found.append(Hierarchy(version, controllers, Path(_unescaped(mountpoint)) / group))
    return tuple(found)


def usable(found: Iterable[Hierarchy], controllers_of_v2: Iterable[str]) -> tuple[Hierarchy, ...]:
    """The hierarchies to bound machines with: version 2 alone where it can, else those of version 1.

    `controllers_of_v2`: what our group of version 2 may hand on.
    """
    found = tuple(found)
    if set(NEEDED) <= set(controllers_of_v2):
        return tuple(one for one in found if one.version == 2)
    wanted = {*NEEDED, "blkio"}
    return tuple(one for one in found if one.version == 1 and one.controllers & wanted)


def settings(hierarchy: Hierarchy, limits: Limits) -> tuple[Setting, ...]:
    """What to write into a machine's group in `hierarchy`, in this order."""
    quota = round(limits.cpus * _PERIOD)
    if hierarchy.version == 2:
        return (
            Setting("memory.max", str(limits.memory)),
            Setting("memory.swap.max", "0", needed=False),
            Setting("memory.oom.group", "1", needed=False),
            Setting("cpu.max", f"{quota} {_PERIOD}"),
            Setting("cpu.weight", str(min(100 * limits.weight, 10_000))),
            Setting("pids.max", str(limits.tasks)),
            Setting("io.weight", f"default {min(100 * limits.weight, 10_000)}", needed=False),
        )
    by_controller = {
        "memory": (
            Setting("memory.limit_in_bytes", str(limits.memory)),
            # Memory and swap together, so it may not be less than the memory: it comes second.
            Setting("memory.memsw.limit_in_bytes", str(limits.memory), needed=False),
        ),
        "cpu": (
            Setting("cpu.cfs_period_us", str(_PERIOD)),
            Setting("cpu.cfs_quota_us", str(quota)),
            Setting("cpu.shares", str(1024 * limits.weight)),
        ),
        "pids": (Setting("pids.max", str(limits.tasks)),),
        "blkio": (Setting("blkio.bfq.weight", str(min(100 * limits.weight, 1000)), needed=False),),
    }
    return tuple(setting for name, group in by_controller.items() if name in hierarchy.controllers for setting in group)


def _below(root: str, place: str) -> str | None:
    """`place` as seen from a mount whose root is `root`; None where it lies elsewhere (another namespace's)."""
    if place.startswith("/.."):
        return None
    if root == "/":
        return place.lstrip("/")
    if place == root or place.startswith(root + "/"):
        return place[len(root) :].lstrip("/")
    return None


def _unescaped(path: str) -> str:
    """A path of mountinfo, which writes blanks in octal (proc(5))."""
    for code, sign in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, sign)
    return path
