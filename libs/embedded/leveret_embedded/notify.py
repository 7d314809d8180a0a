"""The receiving end of systemd's readiness protocol, sd_notify(3): learns from a child itself that it is ready."""

import asyncio
import secrets
import socket


class NotifySocket:
    """A datagram socket for one child's `NOTIFY_SOCKET`, until `close`.

    The name is in the abstract namespace: no file to remove, and no limit from a long directory name.
    """

    def __init__(self) -> None:
        name = f"leveret/notify/{secrets.token_hex(16)}"
        self.address = f"@{name}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(f"\0{name}")

    async def ready(self) -> None:
        """Returns when a `READY=1` has come. Has no limit of its own."""
        loop = asyncio.get_running_loop()
        while b"READY=1" not in (await loop.sock_recv(self._socket, 4096)).splitlines():
            pass

    def close(self) -> None:
        """Gives the address up; closing again does nothing."""
        self._socket.close()
