"""What a machine must not share with others restored from the same template: its time, random numbers and names.

A part of the agent (see `agent.py`): Python 3.7, standard library alone.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time

from leveret_guestapi.agent_machine import (
    read_text,
)

TYPE_CHECKING = False  # the typing module is not worth its import
if TYPE_CHECKING:
    from typing import Any

RNDADDENTROPY, RNDRESEEDCRNG = 0x40085203, 0x5207
MAX_HOST_NAME = 63
LETTERS_AND_DIGITS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


def sync_clock(request: dict[str, Any]) -> None:
    """Set the clock, and have the kernel begin its random numbers anew from the host's bytes.

    Machines restored from one template would otherwise all draw the same numbers. The bytes are credited before the
    reseeding, which the kernel refuses (ENODATA) as long as it has gathered too little of its own.
    """
    random = bytes.fromhex(request["random"])
    if len(random) < 32:
        raise ValueError("at least 32 random bytes are needed")
    with open("/dev/urandom", "wb", buffering=0) as device:
        fcntl.ioctl(device, RNDADDENTROPY, struct.pack("ii", 8 * len(random), len(random)) + random)
        fcntl.ioctl(device, RNDRESEEDCRNG)
    # A double holds today's time to a quarter of a microsecond.
    time.clock_settime(time.CLOCK_REALTIME, float(request["time"]))


def set_identity(request: dict[str, Any], root: str = "") -> None:
    """Give the machine its host name and machine id; `root` stands before all paths."""
    name, machine_id = request["host_name"], request["machine_id"]
    if not is_host_name(name) or not is_machine_id(machine_id):
        raise ValueError("a host name of RFC 1123 and 32 lower-case hexadecimal digits are needed")
    old = read_text(root + "/proc/sys/kernel/hostname")
    with open(root + "/proc/sys/kernel/hostname", "w") as file:
        file.write(name)
    replace_text(root + "/etc/hostname", name + "\n", 0o644)
    replace_text(root + "/etc/hosts", renamed_hosts(read_text(root + "/etc/hosts"), old, name), 0o644)
    replace_text(root + "/etc/machine-id", machine_id + "\n", 0o444)


def is_host_name(name: str) -> bool:
    """RFC 1123, section 2.1: labels of letters, digits and inner hyphens, parted by dots."""
    labels = name.split(".")
    return len(name) <= MAX_HOST_NAME and all(
        label and LETTERS_AND_DIGITS.issuperset(label[0] + label[-1] + label.replace("-", "")) for label in labels
    )


def is_machine_id(text: str) -> bool:
    """machine-id(5): 32 lower-case hexadecimal digits, not all of them zero."""
    return len(text) == 32 and set("0123456789abcdef").issuperset(text) and text != "0" * 32


def renamed_hosts(hosts: str, old: str, new: str) -> str:
    """The hosts file with `new` in the place of `old` at the loopback addresses, or added to them."""
    lines = []
    named = False
    for line in hosts.splitlines():
        words, mark, comment = line.partition("#")
        fields = words.split()
        if fields and (fields[0] == "::1" or fields[0].startswith("127.")):
            if old in fields[1:] and old != "localhost":
                fields = [new if word == old else word for word in fields]
                line = fields[0] + "\t" + " ".join(fields[1:]) + (" " + mark + comment if mark else "")
            named = named or new in fields[1:]
        lines.append(line)
    if not lines:
        lines.append("127.0.0.1\tlocalhost")
    if not named:
        lines.append("127.0.1.1\t" + new)
    return "\n".join(lines) + "\n"


def replace_text(path: str, text: str, mode: int) -> None:
    """Replace a file by another, which whoever reads it sees whole or not at all."""
    temporary = f"{path}.leveret-{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with open(fd, "w") as file:
        os.fchmod(fd, mode)
        file.write(text)
    os.rename(temporary, path)
