"""Who is connected to what: read from /proc, for this machine's own processes."""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

_ESTABLISHED = "01"
_LISTENING = "0A"
_SOCKET = re.compile(r"socket:\[(\d+)\]")


@dataclass(frozen=True)
class Peer:
    """One end's port here and the other end's address."""

    local_port: int
    host: str
    port: int


def connected(pid: int) -> set[Peer]:
    """The established TCP connections of a process; none of one that has just ended."""
    return _of(pid, _ESTABLISHED)


def listening(pid: int) -> set[int]:
    """The TCP ports a process listens on."""
    return {peer.local_port for peer in _of(pid, _LISTENING)}


def _of(pid: int, wanted: str) -> set[Peer]:
    own = _inodes(pid)
    return {peer for inode, state, peer in _table(pid) if state == wanted and inode in own}


def _inodes(pid: int) -> set[str]:
    found = set()
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                named = _SOCKET.fullmatch(os.readlink(entry))
                if named is not None:
                    found.add(named[1])
    except (FileNotFoundError, ProcessLookupError):
        return set()
    return found


def _table(pid: int) -> list[tuple[str, str, Peer]]:
    """Inode, state and ends of every TCP socket in the process's network (proc(5), /proc/net/tcp)."""
    rows = []
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
        except OSError:  # it has ended, or there is no IPv6
            continue
        for line in lines:
            fields = line.split()
            host, port = fields[2].split(":")
            peer = Peer(int(fields[1].split(":")[1], 16), _address(host), int(port, 16))
            rows.append((fields[9], fields[3], peer))
    return rows


def _address(text: str) -> str:
    """An address as the kernel prints it: words of four bytes, each in the machine's order (little-endian here)."""
    raw = b"".join(bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8))
    return str(IPv4Address(raw) if len(raw) == 4 else IPv6Address(raw).ipv4_mapped or IPv6Address(raw))
