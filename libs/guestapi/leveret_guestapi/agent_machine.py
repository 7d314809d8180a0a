"""What the agent tells of the machine it runs in, and how it turns it off.

A part of the agent (see `agent.py`): Python 3.7, standard library alone.
"""

from __future__ import annotations

import os
import sys
import time

AGENT_VERSION = "1.0"


def read_text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read(64 * 1024).strip()
    except OSError:
        return ""


def describe_machine() -> dict[str, object]:
    system = os.uname()
    return {
        "agent": AGENT_VERSION,
        "pid": os.getpid(),
        "python": sys.version.split()[0],
        "system": system.sysname,
        "release": system.release,
        "machine": system.machine,
        "boot_id": read_text("/proc/sys/kernel/random/boot_id"),
        "uptime": float((read_text("/proc/uptime").split() or ["0"])[0]),
    }


def power_off() -> None:
    """Turn the machine off now; its disk is thrown away, so there is nothing to unmount."""
    os.sync()
    try:
        with open("/proc/sysrq-trigger", "w") as trigger:
            trigger.write("o")
        time.sleep(60)
    finally:
        import ctypes

        ctypes.CDLL(None).reboot(0x4321FEDC)
