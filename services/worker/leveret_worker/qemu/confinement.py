"""Taking from QEMU what it does not need: it dies with the worker, is not root, and can't become it."""

import os
from dataclasses import dataclass
from pathlib import Path

from leveret_worker.qemu.arguments import Accelerator

_NOBODY = 65534
KVM_DEVICE = Path("/dev/kvm")


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


def confined(command: list[str], user: QemuUser | None) -> list[str]:
    """The command line that runs `command` confined: setpriv(1) becomes it, so the process id is the command's.

    Args:
        command: what to run.
        user: whom to become, giving up all capabilities; None to stay who we are.
    """
    options = ["--no-new-privs", "--pdeathsig", "KILL"]
    if user is not None:
        groups = ["--groups", ",".join(map(str, user.groups))] if user.groups else ["--clear-groups"]
        options += [f"--reuid={user.uid}", f"--regid={user.gid}", *groups, "--inh-caps=-all", "--bounding-set=-all"]
    return ["setpriv", *options, "--", *command]


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
