"""The notification protocol of systemd's `sd_notify(3)`: readiness and a line of status over a datagram socket."""

import os
import socket

#: Seconds to wait for room. The kernel keeps some ten datagrams for a manager that reads none, and then lets nobody on.
LIMIT = 0.1


def notify(*fields: str) -> None:
    """Send `fields` such as `READY=1` to the socket that NOTIFY_SOCKET names; nothing where it names none."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(LIMIT)
        try:
            channel.sendto("\n".join(fields).encode(), address)
        except OSError:
            pass  # the manager went away, or reads nothing any more; that must not stop a service
