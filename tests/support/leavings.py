"""What a worker process holds of its host, and that it holds no more of it after builds than before."""

import asyncio
import os
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path

from tests.support.processes import descendants

CGROUPS = Path("/sys/fs/cgroup")
#: Parts of the names of descriptors that a worker opens once, when its first guest needs them: the template's, and the
#: namespaces of its guests' way out.
OPENED_ONCE = ("/memfd:guest-memory", "/templates/", "net:[", "user:[")


@dataclass(frozen=True)
class Holdings:
    """A worker's processes, open files, mounts, cgroups and spooled files at one moment, each with its number."""

    processes: Counter[str]
    descriptors: Counter[str]
    mounts: Counter[str]
    cgroups: Counter[str]
    files: Counter[str]

    @classmethod
    def of(cls, pid: int, spool: Path) -> "Holdings":
        """What process `pid`, a worker with that spool, holds now."""
        return cls(
            processes=Counter(_command(child) for child in descendants(pid)[1:]),
            descriptors=Counter(_targets(pid)),
            mounts=Counter(mount for mount in _mounts(pid) if mount.startswith(str(spool))),
            cgroups=Counter(path.name for group in groups(pid) for path in group.iterdir() if path.is_dir()),
            # logs of settled jobs are kept for a while (test_worker_kept.py)
            files=Counter(str(path.relative_to(spool)) for path in spool.glob("*/*") if path.parent.name != "kept"),
        )

    def more_than(self, before: "Holdings") -> dict[str, dict[str, int]]:
        """What is here and was not there, by kind."""
        found = {field.name: getattr(self, field.name) - getattr(before, field.name) for field in fields(self)}
        return {kind: dict(extra) for kind, extra in found.items() if extra}


def groups(pid: int) -> list[Path]:
    """The control groups that the worker process `pid` has made for its machines, one in each hierarchy."""
    return list(CGROUPS.glob(f"**/leveret-{pid}/"))


async def until_nothing_is_left(
    pid: int, spool: Path, before: Holdings, *, kept: tuple[str, ...] = (), limit: float = 30.0
) -> None:
    """Wait until the worker holds nothing more than `before`, but for one descriptor named as each of `kept`."""
    left: dict[str, dict[str, int]] = {}
    try:
        async with asyncio.timeout(limit):
            while left := _without(Holdings.of(pid, spool).more_than(before), kept):
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"left behind by the worker: {left}") from None


def _without(left: dict[str, dict[str, int]], kept: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """What is `left` but for one descriptor with each part of `kept` in its name."""
    descriptors = Counter(left.get("descriptors", {}))
    for part in kept:
        descriptors -= Counter([name for name in descriptors if part in name][:1])
    others = {kind: extra for kind, extra in left.items() if kind != "descriptors"}
    return others | ({"descriptors": dict(descriptors)} if descriptors else {})


def memory(pid: int, field: str = "VmRSS") -> int:
    """Bytes of a process's memory: `VmRSS` now, `VmHWM` the most there ever was."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise AssertionError(f"process {pid} tells no {field}")


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return "ended"


def _targets(pid: int) -> list[str]:
    """What the open descriptors but the standard ones are. What has numbers of its own is only counted."""
    found = []
    for descriptor in set(os.listdir(f"/proc/{pid}/fd")) - {"0", "1", "2"}:
        try:
            target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
        except FileNotFoundError:
            continue
        target = target.replace(f"leveret-{pid}", "leveret-<pid>")
        found.append(target.split(":")[0] if target.startswith(("socket:", "pipe:")) else target)
    return found


def _mounts(pid: int) -> list[str]:
    return [line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
