"""write-file, read-file and stat.

A part of the agent (see `agent.py`): Python 3.7, standard library alone.
"""

from __future__ import annotations

import errno
import os
import stat

from leveret_guestapi.agent_processes import (
    account_of,
)
from leveret_guestapi.agent_tasks import (
    Task,
)
from leveret_guestapi.codec import (
    END,
    STDOUT,
)

TYPE_CHECKING = False  # the typing module is not worth its import
if TYPE_CHECKING:
    from typing import Any

    from leveret_guestapi.agent_main import Agent


class WriteFile(Task):
    """Takes stream 0 into a file beside the target and renames it at the stream's end: the target is old or whole."""

    def __init__(self, agent: Agent, channel: int, request: dict[str, Any]) -> None:
        Task.__init__(self, agent, channel)
        self.path = request["path"]
        self.mode = int(request["mode"])
        user = request.get("user")
        self.account = account_of(user) if user is not None else None
        self.size = 0
        if request.get("parents"):
            self.make_parents(os.path.dirname(self.path))
        self.temporary = f"{self.path}.leveret-{os.getpid()}-{channel}"
        self.fd = os.open(self.temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)

    def make_parents(self, folder: str) -> None:
        if not folder or os.path.isdir(folder):
            return
        self.make_parents(os.path.dirname(folder))
        os.mkdir(folder, 0o755)
        if self.account is not None:
            os.chown(folder, self.account.pw_uid, self.account.pw_gid)

    def on_data(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view) :]
        self.size += len(data)
        self.agent.link.take(self.channel, len(data))

    def on_end(self) -> None:
        if self.account is not None:
            os.fchown(self.fd, self.account.pw_uid, self.account.pw_gid)
        os.fchmod(self.fd, self.mode)
        os.rename(self.temporary, self.path)
        os.close(self.fd)
        self.fd = -1
        self.finish({"size": self.size})

    def stop(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            try:
                os.unlink(self.temporary)
            except OSError:
                pass  # its folder may be gone by now


class ReadFile(Task):
    """Sends a regular file on stream 1 as the host's credit allows; one that outgrows the limit is an error."""

    def __init__(self, agent: Agent, channel: int, request: dict[str, Any]) -> None:
        Task.__init__(self, agent, channel)
        self.limit = int(request["limit"])
        self.size = 0
        self.left = b""
        self.fd = os.open(request["path"], os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        self.status = os.fstat(self.fd)
        if not stat.S_ISREG(self.status.st_mode):
            os.close(self.fd)
            raise OSError(errno.EINVAL, "not a regular file")
        if self.status.st_size > self.limit:
            os.close(self.fd)
            raise OSError(errno.EFBIG, f"{self.status.st_size} bytes, more than the limit of {self.limit}")

    def advance(self) -> None:
        link = self.agent.link
        while True:
            room = link.sendable(self.channel)
            if not room:
                return
            data = self.left or os.read(self.fd, room)
            if not data:
                break
            self.left = data[link.send_data(self.channel, STDOUT, data) :]
            self.size += len(data) - len(self.left)
            if self.size > self.limit:
                raise OSError(errno.EFBIG, f"grew past the limit of {self.limit} bytes while it was read")
        self.stop()
        link.send(END, self.channel, stream=STDOUT)
        self.finish(describe(self.status, self.size))

    def stop(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def describe(status: os.stat_result, size: int) -> dict[str, object]:
    return {
        "size": size,
        "kind": stat.S_IFMT(status.st_mode),
        "mode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
        "mtime": status.st_mtime,
    }
