"""The agent: serves the guest API on one port with a single thread and one epoll loop.

Started by an image's init, by the worker's initrd as process 1, or (`--fd`) as a child process over a socket pair.
Shipped to guests as one file, joined with the modules it imports (see `agent.py`): Python 3.7 syntax, standard library
alone, and only modules that load fast, because a guest without KVM pays every import tenfold.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import time

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
from leveret_guestapi.light import (
    dumps,
    loads,
    signal,
)
from leveret_guestapi.link import (
    Link,
)

TYPE_CHECKING = False  # the typing module is not worth its import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from leveret_guestapi.agent_tasks import Task

# While no host listens the port reports nothing reliably: look again this often, in seconds.
REOPEN_INTERVAL = 0.05
PORT_PIECE = 4096


class Agent:
    """One port, one link, many tasks. `path` is None for a child process on the host; a machine's agent has a port."""

    def __init__(self, fd: int, path: str | None, owns_machine: bool) -> None:
        self.fd = fd
        self.path = path
        self.local = path is None
        self.owns_machine = owns_machine
        self.link = Link(AGENT)
        self.tasks: dict[int, Task] = {}
        self.poll = select.epoll()
        self.watched: dict[int, tuple[int, Callable[[int], object] | None]] = {}
        self.buffer = memoryview(bytearray(4 * MAX_FRAME))
        # A virtio port gives 4 KiB for each place it is asked to fill: so all that is there comes with one call.
        self.pieces = [self.buffer[at : at + PORT_PIECE] for at in range(0, len(self.buffer), PORT_PIECE)]
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
        self.watch(wake, select.EPOLLIN, lambda fd: os.read(fd, 4096))

    def end(self, *_: object) -> None:
        self.running = False

    def note_child(self, *_: object) -> None:
        self.child_ended = True

    def collect_children(self) -> None:
        from leveret_guestapi.agent_processes import reap

        for pid, status in reap():
            for task in self.tasks.values():
                if task.pid == pid:
                    task.on_exit(status)

    def watch(self, fd: int, mask: int, handler: Callable[[int], object] | None = None) -> None:
        """Have `handler(fd)` called when the fd is ready; mask 0 ends that (epoll tells hang-ups even to no mask)."""
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
                    known[1](fd)
            if not self.connected:
                self.receive(self.fd)
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

    def receive(self, _: int) -> None:
        try:
            count = os.readv(self.fd, self.pieces)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENODEV, errno.EIO):
                raise
            count = 0
        if count:
            self.connected = True
            self.take_in(self.buffer[:count])
        else:
            self.lose_host()

    def take_in(self, data: memoryview) -> None:
        while True:
            try:
                events = self.link.receive_data(data)
                break
            except ProtocolViolation as violation:
                self.link.fail(str(violation))
                data = data[:0]  # a preamble may have come after what was wrong
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
        self.link.send(kind, channel, dumps(payload))

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
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            self.give_up(channel, "EINVAL", f"{type(error).__name__}: {error}")

    def give_up(self, channel: int, name: str, message: str) -> None:
        task = self.tasks.get(channel)
        if task is not None:
            task.stop()
        if channel in self.link.channels.opened:
            self.fail(channel, name, message)

    def handle(self, frame: Frame) -> None:
        if frame.kind == REQUEST:
            self.guarded_call(frame.channel, self.begin, frame.channel, frame.payload)
        elif frame.kind == DATA:
            self.guarded(frame.channel, lambda task: task.on_data(frame.payload))
        elif frame.kind == END:
            self.guarded(frame.channel, lambda task: task.on_end())
        elif frame.kind == CONTROL:
            self.guarded(frame.channel, lambda task: task.on_control(loads(frame.payload)))
        elif frame.kind == CANCEL:
            self.guarded(frame.channel, lambda task: task.cancel())

    def begin(self, channel: int, payload: bytes) -> None:
        """Begin a request. What serves it is imported only now: loading costs time, and the start has to be quick."""
        request = loads(payload)
        operation = request["op"]
        if operation == "exec":
            from leveret_guestapi.agent_command import Command

            self.tasks[channel] = Command(self, channel, request)
        elif operation == "write-file":
            from leveret_guestapi.agent_files import WriteFile

            self.tasks[channel] = WriteFile(self, channel, request)
        elif operation == "read-file":
            from leveret_guestapi.agent_files import ReadFile

            self.tasks[channel] = ReadFile(self, channel, request)
        elif operation in ("hello", "stat", "sync-clock", "set-identity", "shut-down"):
            method = getattr(self, "answer_" + operation.replace("-", "_"))
            self.reply(RESULT, channel, method(request))
        else:
            self.fail(channel, "ENOSYS", f"this agent has no operation {operation!r}")

    def answer_hello(self, _: object) -> dict[str, object]:
        from leveret_guestapi.agent_machine import describe_machine

        return describe_machine()

    def answer_stat(self, request: dict[str, Any]) -> dict[str, object]:
        from leveret_guestapi.agent_files import describe

        status = os.lstat(request["path"])
        return describe(status, status.st_size)

    def answer_sync_clock(self, request: dict[str, Any]) -> dict[str, object]:
        from leveret_guestapi.agent_identity import sync_clock

        return self.answer_set(sync_clock, request)

    def answer_set_identity(self, request: dict[str, Any]) -> dict[str, object]:
        from leveret_guestapi.agent_identity import set_identity

        return self.answer_set(set_identity, request)

    def answer_set(self, change: Callable[[dict[str, Any]], None], request: dict[str, Any]) -> dict[str, object]:
        """Change the machine where it is ours to change."""
        if self.owns_machine:
            change(request)
        return {"set": self.owns_machine}

    def answer_shut_down(self, _: object) -> dict[str, object]:
        self.off = True  # as soon as the answer has left
        return {}


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
    """`--port PATH` serves a device for the machine's life; `--fd N` serves an open socket until it closes.

    The clock, the names and the power switch are the agent's where it is process 1, or told so by `--owns-machine`.
    """
    while os.open(os.devnull, os.O_RDWR) < 3:
        pass  # process 1 may start without standard streams; their numbers must not go to anything else
    owns_machine = os.getpid() == 1
    if arguments[:1] == ["--owns-machine"]:
        owns_machine = True
        del arguments[0]
    if len(arguments) != 2 or arguments[0] not in ("--port", "--fd"):
        sys.stderr.write("usage: agent.py [--owns-machine] --port /dev/virtio-ports/NAME | --fd NUMBER\n")
        return 2
    if arguments[0] == "--fd":
        from leveret_guestapi.agent_local import serve_locally

        return serve_locally(int(arguments[1]), lambda fd: Agent(fd, None, False).run())
    agent = Agent(open_port(arguments[1]), arguments[1], owns_machine)
    agent.run()
    if agent.off and owns_machine:
        from leveret_guestapi.agent_machine import power_off

        power_off()
    return 0
