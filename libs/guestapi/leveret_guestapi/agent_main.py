"""The agent: serves the guest API on one port with a single thread and one epoll loop.

Started by an image's init, by the worker's initrd as process 1, or (`--fd`) as a child process over a socket pair.
Shipped to guests as one file, joined with the modules it imports (see `agent.py`): Python 3.7 syntax, standard library
alone, and only modules that load fast, because a guest without KVM pays every import tenfold.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import signal
import struct
import sys
import time

from leveret_guestapi.agent_command import (
    Command,
)
from leveret_guestapi.agent_files import (
    ReadFile,
    WriteFile,
    describe,
)
from leveret_guestapi.agent_processes import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_PDEATHSIG,
    kill_descendants,
    prctl,
    reap,
    send_signal,
)
from leveret_guestapi.agent_tasks import (
    Task,
)
from leveret_guestapi.codec import (
    AGENT,
    CANCEL,
    CONTROL,
    DATA,
    END,
    ERROR,
    MAX_FRAME,
    REQUEST,
    RESULT,
    Frame,
    Opened,
    ProtocolViolation,
)
from leveret_guestapi.link import (
    Link,
)

TYPE_CHECKING = False  # the typing module is not worth its import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

AGENT_VERSION = "1.0"
RNDADDENTROPY, RNDRESEEDCRNG = 0x40085203, 0x5207
# While no host listens the port reports nothing reliably: look again this often, in seconds.
REOPEN_INTERVAL = 0.05


def read_text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read(256).strip()
    except OSError:
        return ""


class Agent:
    """One port, one link, many tasks. `local`: a child process on the host, which must leave the machine alone."""

    def __init__(self, fd: int, path: str | None, local: bool) -> None:
        self.fd = fd
        self.path = path
        self.local = local
        self.link = Link(AGENT)
        self.tasks: dict[int, Task] = {}
        self.poll = select.epoll()
        self.watched: dict[int, tuple[int, Callable[[], object] | None]] = {}
        self.buffer = bytearray(4 * MAX_FRAME)
        self.connected = True
        self.running = True
        self.off = False
        self.child_ended = False
        os.set_blocking(fd, False)
        self.watch_port()
        wake, self.wake_write = os.pipe()
        for end in (wake, self.wake_write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self.wake_write)
        signal.signal(signal.SIGCHLD, self.note_child)
        signal.signal(signal.SIGTERM, self.end)
        self.watch(wake, select.EPOLLIN, lambda: os.read(wake, 4096))

    def end(self, *_: object) -> None:
        self.running = False

    def note_child(self, *_: object) -> None:
        self.child_ended = True

    def collect_children(self) -> None:
        for pid, status in reap():
            for task in self.tasks.values():
                if isinstance(task, Command) and task.pid == pid:
                    task.on_exit(status)

    def watch(self, fd: int, mask: int, handler: Callable[[], object] | None = None) -> None:
        """Have `handler` called when the fd is ready; mask 0 ends that (epoll tells hang-ups even to an empty mask)."""
        known = self.watched.get(fd)
        if not mask:
            if known is not None:
                del self.watched[fd]
                self.poll.unregister(fd)
            return
        if known is None:
            self.poll.register(fd, mask)
        elif known[0] != mask:
            self.poll.modify(fd, mask)
        self.watched[fd] = (mask, handler)

    def watch_port(self) -> None:
        mask = select.EPOLLIN
        if not self.connected:
            mask |= select.EPOLLET  # a port nobody listens to is hung up all the time
        elif self.link.next_piece():
            mask |= select.EPOLLOUT
        self.watch(self.fd, mask, self.receive)

    def run(self) -> None:
        while self.running:
            for fd, _ in self.poll.poll(self.patience()):
                known = self.watched.get(fd)
                if known is not None and known[1] is not None:
                    known[1]()
            if not self.connected:
                self.receive()
            if self.child_ended:
                self.child_ended = False
                self.collect_children()
            self.meet_deadlines()
            for channel in list(self.tasks):
                self.guarded(channel, lambda task: task.advance())
            self.transmit()

    def patience(self) -> float:
        """Seconds the loop may sleep; -1 for as long as nothing happens."""
        times = [task.deadline for task in self.tasks.values() if task.deadline is not None]
        wait = max(0.0, min(times) - time.monotonic()) if times else -1.0
        if not self.connected:
            return min(wait, REOPEN_INTERVAL) if times else REOPEN_INTERVAL
        return wait

    def meet_deadlines(self) -> None:
        now = time.monotonic()
        for task in list(self.tasks.values()):
            if task.deadline is not None and task.deadline <= now:
                task.on_deadline()

    # The port

    def receive(self) -> None:
        filled, hung_up = self.fill_buffer()
        if filled:
            self.connected = True
            self.take_in(memoryview(self.buffer)[:filled])
        if hung_up:
            self.lose_host()

    def fill_buffer(self) -> tuple[int, bool]:
        """Read until the port is empty or the buffer full: a virtio port gives no more than 4 KiB at a time."""
        filled = 0
        with memoryview(self.buffer) as view:
            while filled < len(view):
                try:
                    count = os.readv(self.fd, [view[filled:]])
                except BlockingIOError:
                    return filled, False
                except OSError as error:
                    if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENODEV, errno.EIO):
                        raise
                    return filled, True
                if not count:
                    return filled, True
                filled += count
        return filled, False

    def take_in(self, data: memoryview) -> None:
        try:
            events = self.link.receive_data(data)
        except ProtocolViolation as violation:
            self.link.fail(str(violation))
            return
        for event in events:
            if isinstance(event, Opened):
                if not event.resumed:
                    self.begin_session()
            else:
                self.handle(event)

    def lose_host(self) -> None:
        if self.path is None:
            self.running = False  # a socket pair never comes back
        elif self.connected:
            # The link takes no notice: should somebody listen after all, it goes on; the next preamble clears the rest.
            self.connected = False
            self.watch_port()

    def begin_session(self) -> None:
        for task in self.tasks.values():
            task.stop()
        self.tasks.clear()

    def transmit(self) -> None:
        try:
            while True:
                piece = self.link.next_piece()
                if not piece:
                    if self.off:
                        self.running = False
                    break
                self.link.piece_sent(os.write(self.fd, piece))
                self.connected = True
        except BlockingIOError:
            pass
        except OSError:
            self.lose_host()
            return
        self.watch_port()

    # Requests

    def reply(self, kind: int, channel: int, payload: dict[str, object]) -> None:
        self.link.send(kind, channel, json.dumps(payload).encode("ascii"))

    def fail(self, channel: int, name: str, message: str) -> None:
        self.tasks.pop(channel, None)
        self.reply(ERROR, channel, {"errno": name, "message": message[:1000]})

    def guarded(self, channel: int, action: Callable[[Task], object]) -> None:
        """Call `action(task)`; whatever a request runs into is its own error, not the agent's."""
        task = self.tasks.get(channel)
        if task is not None:
            self.guarded_call(channel, action, task)

    def guarded_call(self, channel: int, action: Callable[..., object], *arguments: object) -> None:
        try:
            action(*arguments)
        except OSError as error:
            self.give_up(channel, errno.errorcode.get(error.errno or 0, "EIO"), error.strerror or str(error))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            self.give_up(channel, "EINVAL", f"{type(error).__name__}: {error}")

    def give_up(self, channel: int, name: str, message: str) -> None:
        task = self.tasks.get(channel)
        if task is not None:
            task.stop()
        if channel in self.link.channels:
            self.fail(channel, name, message)

    def handle(self, frame: Frame) -> None:
        if frame.kind == REQUEST:
            self.guarded_call(frame.channel, self.begin, frame.channel, frame.payload)
        elif frame.kind == DATA:
            self.guarded(frame.channel, lambda task: task.on_data(frame.payload))
        elif frame.kind == END:
            self.guarded(frame.channel, lambda task: task.on_end())
        elif frame.kind == CONTROL:
            self.guarded(frame.channel, lambda task: task.on_control(json.loads(frame.payload.decode())))
        elif frame.kind == CANCEL:
            self.guarded(frame.channel, lambda task: task.cancel())

    def begin(self, channel: int, payload: bytes) -> None:
        request = json.loads(payload.decode())
        operation = request["op"]
        if operation in ("exec", "write-file", "read-file"):
            kinds = {"exec": Command, "write-file": WriteFile, "read-file": ReadFile}
            self.tasks[channel] = kinds[operation](self, channel, request)
        elif operation in ("hello", "stat", "sync-clock", "shut-down"):
            method = getattr(self, "answer_" + operation.replace("-", "_"))
            self.reply(RESULT, channel, method(request))
        else:
            self.fail(channel, "ENOSYS", f"this agent has no operation {operation!r}")

    def answer_hello(self, _: object) -> dict[str, object]:
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

    def answer_stat(self, request: dict[str, Any]) -> dict[str, object]:
        status = os.lstat(request["path"])
        return describe(status, status.st_size)

    def answer_sync_clock(self, request: dict[str, Any]) -> dict[str, object]:
        """Set the clock and mix the host's random bytes in; the host's own clock is not ours to set."""
        if self.local:
            return {"set": False}
        time.clock_settime(time.CLOCK_REALTIME, float(request["time"]))
        random = bytes.fromhex(request.get("random", ""))
        if random:
            with open("/dev/urandom", "wb", buffering=0) as device:
                pool = struct.pack("ii", 8 * len(random), len(random)) + random
                fcntl.ioctl(device, RNDADDENTROPY, pool)
                fcntl.ioctl(device, RNDRESEEDCRNG)
        return {"set": True}

    def answer_shut_down(self, _: object) -> dict[str, object]:
        self.off = True  # as soon as the answer has left
        return {}


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


def guard(pid: int) -> None:
    """Outlive the local agent `pid` and then kill whatever it left, should it have been killed itself."""
    signal.signal(signal.SIGTERM, lambda *_: send_signal(pid, signal.SIGTERM))
    while True:
        try:
            if os.waitpid(-1, 0)[0] == pid:
                break
        except ChildProcessError:
            break
    kill_descendants()


def open_port(path: str) -> int:
    """Open the port, waiting for its device to appear: the driver may still be loading."""
    while True:
        try:
            return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EBUSY):
                raise
            time.sleep(REOPEN_INTERVAL)


def main(arguments: list[str]) -> int:
    """`--port PATH` serves a device for the machine's life; `--fd N` serves an open socket until it closes."""
    while os.open(os.devnull, os.O_RDWR) < 3:
        pass  # process 1 may start without standard streams; their numbers must not go to anything else
    if len(arguments) != 2 or arguments[0] not in ("--port", "--fd"):
        sys.stderr.write("usage: agent.py --port /dev/virtio-ports/NAME | --fd NUMBER\n")
        return 2
    if arguments[0] == "--port":
        agent = Agent(open_port(arguments[1]), arguments[1], False)
        agent.run()
        if agent.off:
            power_off()
        return 0
    return serve_locally(int(arguments[1]))


def serve_locally(fd: int) -> int:
    """Two processes, each of which ends everything when the other does: even a killed agent leaves nothing running."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    pid = os.fork()
    if pid:
        os.close(fd)
        guard(pid)
        return 0
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.set_inheritable(fd, False)
    try:
        Agent(fd, None, True).run()
    finally:
        kill_descendants()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
