"""The words in front of a command that take from it what it does not need. Pure, but for who we are.

Each function gives a command line that runs `words`; they are put in front of each other by `cage`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from leveret_worker.qemu.arguments import Accelerator

_NOBODY = 65534
KVM_DEVICE = Path("/dev/kvm")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OPEN_FILES = 1024

_JOIN = 'while [ "$1" != -- ]; do echo $$ >"$1"; shift; done; shift; exec "$@"'


@dataclass(frozen=True)
class QemuUser:
    """Whom QEMU runs as when the worker is root."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def qemu_user(accelerator: Accelerator) -> QemuUser | None:
    """Whom to run QEMU as here: nobody where we are root, else (None) whoever we are.

    For KVM it joins the group that owns /dev/kvm, as Debian sets it up (root:kvm, 0660), unless that is root's.
    """
    if os.geteuid() != 0:
        return None
    groups: tuple[int, ...] = ()
    if accelerator is Accelerator.KVM and KVM_DEVICE.exists() and (group := KVM_DEVICE.stat().st_gid) != 0:
        groups = (group,)
    return QemuUser(_NOBODY, _NOBODY, groups)


def may_open(device: Path, user: QemuUser | None) -> bool:
    """Whether `user` (None: who we are) may read and write `device`, by its owner, group and mode."""
    if user is None:
        return os.access(device, os.R_OK | os.W_OK)
    status = device.stat()
    if status.st_uid == user.uid:
        bits = status.st_mode >> 6
    elif status.st_gid in (user.gid, *user.groups):
        bits = status.st_mode >> 3
    else:
        bits = status.st_mode
    return bits & 0o6 == 0o6


def confined(words: Sequence[str], user: QemuUser | None) -> list[str]:
    """Dies with its parent, gains no privilege, and is `user` without any capability (None: who we are)."""
    options = ["--no-new-privs", "--pdeathsig", "KILL"]
    if user is not None:
        groups = ["--groups", ",".join(map(str, user.groups))] if user.groups else ["--clear-groups"]
        options += [f"--reuid={user.uid}", f"--regid={user.gid}", *groups, "--inh-caps=-all", "--bounding-set=-all"]
    return ["setpriv", *options, "--", *words]


def leashed(words: Sequence[str]) -> list[str]:
    """For a tool of ours that works on files of ours: dies with the worker, and gains no privilege."""
    return confined(words, None)


def joined(words: Sequence[str], groups: Sequence[Path]) -> list[str]:
    """In these control groups; `groups` are the files that a process joins them by."""
    return ["sh", "-c", _JOIN, "sh", *map(str, groups), "--", *words]


def bounded(words: Sequence[str], file_bytes: int) -> list[str]:
    """No file that it writes grows beyond `file_bytes`: it is told so by an error (EFBIG), not killed by SIGXFSZ.

    It leaves no core file, and sees nothing of our environment, where addresses have passwords in them.
    """
    limits = ["--core=0", f"--fsize={file_bytes}", f"--nofile={_OPEN_FILES}"]
    return ["prlimit", *limits, "--", "env", "-i", "--ignore-signal=XFSZ", f"PATH={_PATH}", *words]


def networked(words: Sequence[str], user_namespace: str | None, network_namespace: str) -> list[str]:
    """In an existing network namespace; who is not root gets there through the user namespace that owns it."""
    through = [] if user_namespace is None else [f"--user={user_namespace}", "--preserve-credentials"]
    return ["nsenter", *through, f"--net={network_namespace}", "--", *words]


def secluded(
    words: Sequence[str], *, own_network: bool, devices: Sequence[Path] = (), resolver: int | None = None
) -> list[str]:
    """In namespaces of its own, made by bubblewrap(1): it sees no other process, and of the host's files only /usr.

    Args:
        words: the command.
        own_network: whether it gets a network namespace in which there is nothing.
        devices: device files that it needs.
        resolver: an inherited descriptor to read its /etc/resolv.conf from.
    """
    options = ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    options += ["--unshare-user", "--disable-userns", "--unshare-ipc", "--unshare-pid", "--unshare-uts"]
    options += ["--unshare-cgroup-try"]
    if own_network:
        options.append("--unshare-net")
    options += ["--ro-bind", "/usr", "/usr", "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for directory in ("bin", "sbin", "lib", "lib64"):
        options += ["--symlink", f"usr/{directory}", f"/{directory}"]
    options += ["--proc", "/proc", "--dev", "/dev"]
    for device in devices:
        options += ["--dev-bind", str(device), str(device)]
    if resolver is not None:
        options += ["--ro-bind-data", str(resolver), "/etc/resolv.conf"]
    return ["bwrap", *options, "--remount-ro", "/dev", "--remount-ro", "/", "--", *words]
