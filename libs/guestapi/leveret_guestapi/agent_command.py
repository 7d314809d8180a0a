"""exec: a command with pipes or a terminal, from its start to the last byte it wrote.

A part of the agent (see `agent.py`): Python 3.7, standard library alone.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import select
import struct
import termios
import time

from leveret_guestapi.agent_processes import (
    PR_SET_PDEATHSIG,
    account_of,
    prctl,
    processes,
    send_signal,
)
from leveret_guestapi.agent_tasks import (
    Task,
)
from leveret_guestapi.codec import (
    END,
    STARTED,
    STDERR,
    STDOUT,
)
from leveret_guestapi.light import (
    signal,
)

TYPE_CHECKING = False  # the typing module is not worth its import
if TYPE_CHECKING:
    from typing import Any

    from leveret_guestapi.agent_main import Agent

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
F_SETPIPE_SZ = 1031
# A pipe holds at most this much, so this much may have been written before a command ended.
MAX_LEFT_IN_PIPE = 1024 * 1024
PIPE_SIZE = 256 * 1024


class Command(Task):
    """A command with pipes or a terminal, from its start to the last byte it wrote."""

    def __init__(self, agent: Agent, channel: int, request: dict[str, Any]) -> None:
        Task.__init__(self, agent, channel)
        self.kill_after = float(request["kill_after"])
        self.status: int | None = None
        self.timed_out = False
        self.signalled = False
        self.outputs: dict[int, int] = {}  # fd: stream
        self.left: dict[int, bytes] = {}  # fd: read, but cut off by send_data
        self.after_end: dict[int, int] = {}  # fd: bytes read since the command ended
        self.input = -1
        self.pending: list[tuple[bytes, int]] = []  # (still to be written, bytes of the whole frame: 0 for no frame)
        self.input_ended = False
        self.terminal = -1
        self.controlled = False  # by its terminal
        limit = request.get("time_limit")
        time_limit = None if limit is None else float(limit)
        self.pid = self.start(request)
        if time_limit is not None:
            self.deadline = time.monotonic() + time_limit
        agent.reply(STARTED, channel, {"pid": self.pid})

    # Starting

    def start(self, request: dict[str, Any]) -> int:
        account = account_of(request.get("user"))
        environment = command_environment(account, request)
        child_ends = self.open_terminal(request) if request.get("pty") else self.open_pipes(request)
        report, report_child = os.pipe()
        try:
            pid = os.fork()
            if pid == 0:
                self.become(request, account, environment, child_ends, report_child)
        except BaseException:
            self.close_all()
            os.close(report)
            raise
        finally:
            os.close(report_child)
            for fd in set(child_ends):
                os.close(fd)
        with os.fdopen(report, "rb") as file:
            failure = file.read()  # ends when exec closes the pipe
        if failure:
            os.waitpid(pid, 0)
            self.close_all()
            number, _, what = failure.decode("utf-8", "replace").partition(" ")
            raise OSError(int(number), what)
        return pid

    def open_pipes(self, request: dict[str, Any]) -> tuple[int, int, int]:
        stdout, stdout_child = os.pipe()
        stderr, stderr_child = os.pipe()
        for fd, stream in ((stdout, STDOUT), (stderr, STDERR)):
            os.set_blocking(fd, False)
            self.outputs[fd] = stream
            try:
                fcntl.fcntl(fd, F_SETPIPE_SZ, PIPE_SIZE)
            except OSError:
                pass  # over the user's limit: only a little slower
        if not request.get("stdin"):
            return os.open(os.devnull, os.O_RDONLY), stdout_child, stderr_child
        stdin_child, self.input = os.pipe()
        os.set_blocking(self.input, False)
        return stdin_child, stdout_child, stderr_child

    def open_terminal(self, request: dict[str, Any]) -> tuple[int, int, int]:
        """A terminal to sit at, or without `stdin` one to write to: that controls nothing and changes no byte."""
        self.terminal, child = os.openpty()
        os.set_blocking(self.terminal, False)
        self.resize(request["pty"])
        self.outputs[self.terminal] = STDOUT
        if not request.get("stdin"):
            attributes = termios.tcgetattr(child)
            attributes[1] &= ~termios.OPOST
            termios.tcsetattr(child, termios.TCSANOW, attributes)
            return os.open(os.devnull, os.O_RDONLY), child, child
        self.controlled = True
        self.input = os.dup(self.terminal)
        return child, child, child

    def become(
        self,
        request: dict[str, Any],
        account: pwd.struct_passwd | None,
        environment: dict[str, str],
        ends: tuple[int, int, int],
        report: int,
    ) -> None:
        """In the child: turn into the command. Never returns; a failure goes through `report` as `errno text`."""
        doing = "fork"
        try:
            os.setsid()
            if self.agent.local:
                prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            for number in (
                signal.SIGPIPE,
                signal.SIGXFSZ,
                signal.SIGCHLD,
                signal.SIGTERM,
                signal.SIGINT,
                signal.SIGHUP,
            ):
                signal.signal(number, signal.SIG_DFL)
            if self.controlled:
                fcntl.ioctl(ends[0], termios.TIOCSCTTY, 0)
            for target, fd in enumerate(ends):
                os.dup2(fd, target)
            os.umask(0o022)
            if account is not None and account.pw_uid != os.getuid():
                doing = f"become {account.pw_name}"
                if self.terminal >= 0:
                    os.fchown(1, account.pw_uid, -1)
                os.initgroups(account.pw_name, account.pw_gid)
                os.setgid(account.pw_gid)
                os.setuid(account.pw_uid)
            folder = request.get("cwd") or (environment["HOME"] if os.path.isdir(environment["HOME"]) else "/")
            doing = f"change to {folder}"
            os.chdir(folder)
            argv = request["argv"]
            doing = f"run {argv[0]}"
            os.execvpe(argv[0], argv, environment)
        except OSError as error:
            os.write(report, (f"{error.errno or errno.EIO} {doing}: {error.strerror}").encode("utf-8", "replace"))
        except BaseException as error:
            os.write(report, (f"{errno.EINVAL} {doing}: {error!r}").encode("utf-8", "replace"))
        finally:
            os._exit(127)

    # Input

    def on_data(self, data: bytes) -> None:
        if self.input < 0:
            self.agent.link.take(self.channel, len(data))  # the command no longer reads, or never did
            return
        self.pending.append((data, len(data)))
        self.write_input()

    def on_end(self) -> None:
        self.input_ended = True
        if self.input >= 0 and self.terminal >= 0:
            self.pending.append((b"\x04", 0))  # a terminal's end of file
        self.write_input()

    def write_input(self, _: int = -1) -> None:
        if self.input < 0:
            return
        try:
            while self.pending:
                data, frame = self.pending[0]
                rest = data[os.write(self.input, data) :]
                if rest:
                    self.pending[0] = (rest, frame)
                else:
                    self.take_pending()
        except BlockingIOError:
            pass
        except OSError:
            while self.pending:
                self.take_pending()
            self.input_ended = True  # nobody reads any more
        if self.pending:
            self.agent.watch(self.input, select.EPOLLOUT, self.write_input)
        else:
            self.agent.watch(self.input, 0)
            if self.input_ended:
                self.close_input()

    def take_pending(self) -> None:
        _, frame = self.pending.pop(0)
        if frame:
            self.agent.link.take(self.channel, frame)

    def close_input(self) -> None:
        if self.input >= 0:
            self.agent.watch(self.input, 0)
            os.close(self.input)
            self.input = -1

    # Output

    def advance(self) -> None:
        """Read on where there is room to send; where there is none the command is left to block on its full pipe."""
        if self.status is None:
            mask = select.EPOLLIN if self.agent.link.sendable(self.channel) else 0
            for fd in self.outputs:
                self.agent.watch(fd, mask, self.read_output)
            return
        for fd in list(self.outputs):
            self.read_output(fd)
        if not self.outputs:
            self.report_status(self.status)

    def read_output(self, fd: int) -> None:
        """Pass on what can be read now. Once the command has ended, an empty pipe is the end of its output too:

        a daemon it left behind may hold the pipe open for as long as it likes.
        """
        link, stream = self.agent.link, self.outputs[fd]
        while True:
            room = link.sendable(self.channel)
            if not room:
                return
            data = self.left.pop(fd, None)
            if data is None:
                data = self.read_terminal(room) if fd == self.terminal else read_pipe(fd, room)
            if data is None:
                if self.status is not None:
                    self.close_output(fd)
                return
            if not data:
                self.close_output(fd)
                return
            sent = link.send_data(self.channel, stream, data)
            if sent < len(data):
                self.left[fd] = data[sent:]
            elif self.status is None and len(data) < room:
                return  # it was all there was
            if self.status is not None:
                self.after_end[fd] = self.after_end.get(fd, 0) + sent
                if self.after_end[fd] >= MAX_LEFT_IN_PIPE and fd not in self.left:
                    self.close_output(fd)
                    return

    def read_terminal(self, room: int) -> bytes | None:
        """What a terminal holds, as `read_pipe`; it gives no more than 4 KiB at a time."""
        data = b""
        while len(data) < room:
            more = read_pipe(self.terminal, room - len(data))
            if not more:
                return data or more
            data += more
        return data

    def close_output(self, fd: int) -> None:
        self.agent.watch(fd, 0)
        stream = self.outputs.pop(fd)
        os.close(fd)
        if fd == self.terminal:
            self.terminal = -1
        self.agent.link.send(END, self.channel, stream=stream)

    # The end

    def on_control(self, request: dict[str, Any]) -> None:
        if "resize" in request:
            self.resize(request["resize"])
        elif self.status is None:
            number = int(getattr(signal, "SIG" + request["signal"]))
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                pass

    def resize(self, size: list[int]) -> None:
        if self.terminal >= 0:
            rows, columns = size
            fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def on_deadline(self) -> None:
        """The time limit: first a request to the process group, then no mercy for the whole session."""
        self.timed_out = True
        if not self.signalled:
            self.signalled = True
            self.deadline = time.monotonic() + self.kill_after
            try:
                os.killpg(self.pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
        else:
            self.deadline = None
            self.kill_session()

    def kill_session(self) -> None:
        for pid, _, session in processes():
            if session == self.pid:
                send_signal(pid, signal.SIGKILL)

    def on_exit(self, status: int) -> None:
        self.status = status
        self.deadline = None
        if self.timed_out:
            self.kill_session()
        self.close_input()
        for fd in self.outputs:
            self.agent.watch(fd, 0)

    def report_status(self, status: int) -> None:
        result: dict[str, object] = {"timed_out": self.timed_out}
        if os.WIFSIGNALED(status):
            result["signal"] = os.WTERMSIG(status)
        else:
            result["code"] = os.WEXITSTATUS(status)
        self.finish(result)

    def stop(self) -> None:
        """Kill without waiting: the loop reaps the command; nobody wants its status any more."""
        self.kill_session()
        self.close_all()

    def close_all(self) -> None:
        self.close_input()
        for fd in self.outputs:
            self.agent.watch(fd, 0)
            os.close(fd)
        self.outputs.clear()
        self.terminal = -1


def read_pipe(fd: int, room: int) -> bytes | None:
    """What the pipe holds, of at most `room` bytes; None when there is nothing now, nothing (b"") at its end."""
    try:
        return os.read(fd, room)
    except BlockingIOError:
        return None
    except OSError:
        return b""  # a terminal whose other side is closed says EIO


def command_environment(account: pwd.struct_passwd | None, request: dict[str, Any]) -> dict[str, str]:
    environment = {"PATH": os.environ.get("PATH", DEFAULT_PATH), "HOME": "/"}
    if account is not None:
        environment.update(HOME=account.pw_dir, USER=account.pw_name, LOGNAME=account.pw_name, SHELL=account.pw_shell)
    if request.get("pty"):
        environment["TERM"] = "xterm"
    environment.update(request.get("env") or {})
    return environment
