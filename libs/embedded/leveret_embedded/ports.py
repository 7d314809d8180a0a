"""Loopback TCP ports that stay ours: across restarts of the program behind them, and beside other stacks.

Taken outside the kernel's ephemeral range, because a port inside it can be lost to some client's outgoing connection
while its server is down, and a client that keeps retrying such a port may even connect to itself.
"""

import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

HOST = "127.0.0.1"

_LOWEST = 10240
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_ATTEMPTS = 1000


class NoFreePortError(RuntimeError):
    """No free loopback port was found."""


@contextmanager
def reserved_ports(count: int) -> Iterator[list[int]]:
    """Yields `count` different free ports of 127.0.0.1; no other stack is given them until the block ends.

    Raises NoFreePortError when a thousand random candidates were all taken.
    """
    candidates = _candidates()
    with ExitStack() as reservations:
        ports: list[int] = []
        for _ in range(_ATTEMPTS):
            if len(ports) == count:
                break
            port = random.choice(candidates)
            claim = _claim(port)
            if claim is not None:
                reservations.enter_context(claim)
                ports.append(port)
        if len(ports) < count:
            raise NoFreePortError(f"found only {len(ports)} of {count} free loopback TCP ports in {candidates}")
        yield ports


def _candidates() -> range:
    low, high = (int(word) for word in _EPHEMERAL_RANGE.read_text().split())
    below, above = range(_LOWEST, low), range(high + 1, 65536)
    widest = max(below, above, key=len)
    return widest if len(widest) >= 100 else range(_LOWEST, 65536)


def _claim(port: int) -> socket.socket | None:
    """An abstract Unix socket named after the port: the kernel gives its name to one holder, until that dies."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0leveret/port/{port}")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
    except OSError:
        claim.close()
        return None
    return claim
