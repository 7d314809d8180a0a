"""The host's side of the guest API: what a worker can ask of a guest. `docs/guestapi.md` describes the wire beneath.

The guest is hostile until proved otherwise: every wait has a limit, every length a bound, and every answer is checked.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

from leveret_guestapi import requests
from leveret_guestapi.codec import CONTROL, ERROR, NONCE_SIZE, STDERR, STDOUT, GuestApiError, ProtocolViolation
from leveret_guestapi.conversation import Call, Conversation, Endpoint, GuestGone, GuestTimeout
from leveret_guestapi.requests import ExitStatus, FileStatus, Hello

WRITE_PIECE = 256 * 1024


@dataclass(frozen=True)
class Completed:
    """A command that has ended, with its output."""

    status: ExitStatus
    stdout: bytes
    stderr: bytes


class GuestClient:
    """A session with one guest, as an async context manager:

        async with GuestClient.connect(path) as guest:
            done = await guest.run(["uname", "-a"])

    Any call may raise GuestGone (contact lost; GuestTimeout when a wait ran out), ProtocolViolation (the guest sent
    what it must not; the session is over), or GuestError (the guest refused or failed this one request).
    """

    hello: Hello

    def __init__(self, conversation: Conversation, hello_timeout: float, operation_limit: float) -> None:
        self._conversation = conversation
        self._hello_timeout = hello_timeout
        self._limit = operation_limit
        self._tasks = asyncio.TaskGroup()
        self._runner: asyncio.Task[None] | None = None

    @classmethod
    def connect(
        cls,
        endpoint: Endpoint,
        *,
        nonce: bytes | None = None,
        hello_timeout: float = 30.0,
        operation_limit: float = 60.0,
        beat_interval: float = 5.0,
        beat_limit: float = 30.0,
        reconnect_limit: float = 0.0,
    ) -> GuestClient:
        """A client for a connected socket, or for the path of a Unix socket (which may appear later). Times in seconds.

        `nonce`: 16 bytes that name the session, random by default. `hello_timeout`: until the agent's hello, the wait
        for the socket included. `operation_limit`: for any step that needs no more than an answer. `beat_interval` and
        `beat_limit`: contact counts as lost when a beat stays unanswered so long. `reconnect_limit`: for how long to
        try to reach a path again whose connection broke; requests under way then go on unharmed. 0: not at all.
        """
        conversation = Conversation(
            endpoint,
            os.urandom(NONCE_SIZE) if nonce is None else nonce,
            beat_interval=beat_interval,
            beat_limit=beat_limit,
            reconnect_limit=reconnect_limit,
        )
        return cls(conversation, hello_timeout, operation_limit)

    async def __aenter__(self) -> GuestClient:
        await self._tasks.__aenter__()
        self._runner = self._tasks.create_task(self._conversation.run())
        try:
            async with asyncio.timeout(self._hello_timeout):
                await self._conversation.was_open.wait()
                self.hello = requests.parse_hello(await self._ask(requests.encode({"op": "hello"}), "answer hello"))
        except TimeoutError:
            await self._close()
            raise GuestTimeout(f"no agent answered within {self._hello_timeout:g} s") from None
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        assert self._runner is not None
        self._runner.cancel()
        # The body's own exception is not the group's business: it must come out as it is, not wrapped.
        await self._tasks.__aexit__(None, None, None)

    @property
    def failure(self) -> GuestApiError | None:
        """What ended the session, or None while it lives."""
        return self._conversation.failure

    def lose(self, failure: GuestApiError) -> None:
        """End the session: all calls, those under way too, raise `failure`. For who knows that the guest is gone."""
        self._conversation.fail(failure)

    # --- Commands ---

    def exec(
        self,
        command: Sequence[str] | str,
        *,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: str | None = None,
        pty: tuple[int, int] | None = None,
        stdin: bool = False,
        time_limit: float | None = None,
        kill_after: float = 10.0,
    ) -> Process:
        """A command to run, as an async context manager: entering starts it, leaving kills it if it still runs.

        `command`: words, or one string as a script for `/bin/sh -c`. `env` is added to PATH, HOME, USER, LOGNAME, SHELL
        (and TERM with a terminal). `user`: a name the guest knows, default the agent's own. `cwd`: default the home.
        `pty`: (rows, columns) of a terminal to write to, whose output all is STDOUT; with `stdin` it is a terminal to
        sit at, which controls the command. `time_limit` in seconds: then SIGTERM to the process group, and `kill_after`
        seconds later SIGKILL to the whole session.

        Entering raises GuestError when the command can't be started (ENOENT: no such command). ValueError for words
        that could not be passed on.
        """
        words = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
        request = requests.exec_request(
            words,
            env=env or {},
            user=user,
            cwd=cwd,
            pty=pty,
            stdin=stdin,
            time_limit=time_limit,
            kill_after=kill_after,
        )
        total = None if time_limit is None else time_limit + kill_after
        return Process(self._conversation, request, total, self._limit)

    async def run(
        self,
        command: Sequence[str] | str,
        *,
        input: bytes = b"",
        output_limit: int = 1024 * 1024,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: str | None = None,
        time_limit: float = 60.0,
    ) -> Completed:
        """Run a command to its end, its output collected. GuestError EFBIG when it writes over `output_limit` bytes."""
        process = self.exec(command, env=env, user=user, cwd=cwd, stdin=bool(input), time_limit=time_limit)
        collected = {STDOUT: bytearray(), STDERR: bytearray()}
        try:
            async with process, asyncio.TaskGroup() as tasks:
                feeder = tasks.create_task(process.feed(input)) if input else None
                async for stream, data in process.output():
                    collected[stream] += data
                    if len(collected[STDOUT]) + len(collected[STDERR]) > output_limit:
                        break
                if feeder is not None:
                    feeder.cancel()
        except ExceptionGroup as group:
            # When feeder and reader fail together, it is for the same reason.
            raise group.exceptions[0] from None
        if process.status is None:
            raise requests.GuestError("EFBIG", f"the command wrote more than {output_limit} bytes")
        return Completed(process.status, bytes(collected[STDOUT]), bytes(collected[STDERR]))

    # --- Files ---

    async def write_file(
        self,
        path: str,
        data: bytes | AsyncIterable[bytes],
        *,
        mode: int = 0o644,
        user: str | None = None,
        parents: bool = True,
    ) -> None:
        """Write a file in the guest, whole or not at all. `user` owns it, and the `parents` made for it (0755)."""
        call = await self._open(requests.write_file_request(path, mode, user, parents))
        sent = 0
        try:
            async for piece in _pieces(data):
                await call.send(piece, self._limit)
                sent += len(piece)
                if call.outcome:
                    break
            call.end()
            written = requests.parse_size(await call.result(self._limit, f"finish writing {path}"))
        finally:
            call.abandon()
        if written != sent:
            raise ProtocolViolation(f"{sent} bytes were sent for {path}, the guest claims to have written {written}")

    async def read_file(self, path: str, limit: int) -> AsyncIterator[bytes]:
        """The content of a regular file of at most `limit` bytes, piece by piece. GuestError EFBIG if it has more."""
        call = await self._open(requests.read_file_request(path, limit))
        size = 0
        try:
            while (chunk := await call.next_chunk(self._limit)) is not None:
                size += len(chunk[1])
                if size > limit:
                    raise ProtocolViolation(f"the guest sends more than the {limit} bytes asked for of {path}")
                yield chunk[1]
            claimed = requests.parse_size(await call.result(self._limit, f"finish reading {path}"))
        finally:
            call.abandon()
        if claimed != size:
            raise ProtocolViolation(f"{size} bytes came of {path}, the guest claims to have sent {claimed}")

    async def stat(self, path: str) -> FileStatus:
        """What is at the path, symbolic links not followed. GuestError ENOENT when nothing is."""
        request = requests.encode({"op": "stat", "path": requests.check_path(path)})
        return requests.parse_file_status(await self._ask(request, f"stat {path}"))

    # --- The machine ---

    async def sync_clock(self) -> bool:
        """Set the guest's clock to the host's and give it fresh random bytes; needed after a restore from a template.

        False when the agent does not run in a machine of its own and so has left the clock alone.
        """
        request = requests.sync_clock_request(time.time(), os.urandom(64))
        return requests.parse_flag(await self._ask(request, "set its clock"), "set")

    async def set_identity(self, *, host_name: str, machine_id: str) -> bool:
        """Name the guest: its host name (RFC 1123, at most 63 characters) and machine id (32 lower-case hex digits).

        False when the agent does not run in a machine of its own and so has left the names alone. ValueError for names
        that are none.
        """
        request = requests.set_identity_request(host_name, machine_id)
        return requests.parse_flag(await self._ask(request, "take its identity"), "set")

    async def shut_down(self) -> None:
        """Have the guest switch itself off. Returns when the agent has agreed; watch the machine for the rest."""
        await self._ask(requests.encode({"op": "shut-down"}), "agree to shut down")

    async def _open(self, request: bytes) -> Call:
        return await self._conversation.open_call(request, self._limit)

    async def _ask(self, request: bytes, what: str) -> bytes:
        call = await self._open(request)
        try:
            return await call.result(self._limit, what)
        finally:
            call.abandon()


class Process:
    """A command in the guest. Made by `GuestClient.exec`; use it as an async context manager."""

    def __init__(self, conversation: Conversation, request: bytes, total: float | None, limit: float) -> None:
        self.status: ExitStatus | None = None
        self._conversation = conversation
        self._request = request
        self._total = total
        self._limit = limit
        self._call: Call | None = None
        self._deadline: float | None = None
        self._read = False

    async def __aenter__(self) -> Process:
        call = self._call = await self._conversation.open_call(self._request, self._limit)
        if self._total is not None:
            self._deadline = asyncio.get_running_loop().time() + self._total
        try:
            await call.until(lambda: call.started or call.outcome, self._limit, "start the command")
            if call.outcome is not None and call.outcome.kind == ERROR:
                await call.result(0, "start the command")
        except BaseException:
            call.abandon()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        call = self._started()
        if call.outcome is not None or self._conversation.failure is not None:
            return
        call.abandon()
        if exc is not None:
            return  # whoever leaves in haste does not wait for a guest, which may never answer
        try:
            await call.until(lambda: call.outcome, self._limit, "stop a cancelled command")
        except GuestTimeout as error:
            self._conversation.fail(error)
            raise

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """What the command writes, as (STDOUT or STDERR, bytes), until it has ended.

        Taking a piece is what lets the guest send more: at most 1 MiB waits on the host, then the command is slowed.
        """
        self._read = True
        call = self._started()
        while (chunk := await call.next_chunk(self._patience())) is not None:
            yield chunk
        self._conclude(await call.result(0, "end the command"))

    async def wait(self) -> ExitStatus:
        """How the command ended. Throws its output away, unless somebody has begun to read it."""
        if not self._read:
            async for _ in self.output():
                pass
        if self.status is None:
            self._conclude(await self._started().result(self._patience(), "end the command"))
        assert self.status is not None
        return self.status

    async def feed(self, data: bytes | AsyncIterable[bytes]) -> None:
        """Write to the command's standard input (`stdin=True`), then close it."""
        async for piece in _pieces(data):
            await self.write(piece)
        self.close_input()

    async def write(self, data: bytes) -> None:
        """Write to the command's standard input. Waits while the command does not read, as long as it may run."""
        call = self._started()
        await call.send(data, self._patience())

    def close_input(self) -> None:
        self._started().end()

    def signal(self, name: str) -> None:
        """Send a signal, named without SIG, to the command's process group. Nothing happens once it has ended."""
        self._conversation.send(CONTROL, self._started().number, requests.signal_control(name))

    def resize(self, rows: int, columns: int) -> None:
        """Tell the command's terminal its new size."""
        self._conversation.send(CONTROL, self._started().number, requests.resize_control(rows, columns))

    def _started(self) -> Call:
        if self._call is None:
            raise RuntimeError("the command was not started: use `async with`")
        return self._call

    def _patience(self) -> float | None:
        """Seconds until even a slow guest must have enforced the time limit; None without one."""
        if self._deadline is None:
            return None
        return max(self._deadline - asyncio.get_running_loop().time(), 0.0) + self._limit

    def _conclude(self, payload: bytes) -> None:
        self.status = requests.parse_exit_status(payload)


async def _pieces(data: bytes | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(data, bytes):
        for at in range(0, len(data), WRITE_PIECE):
            yield data[at : at + WRITE_PIECE]
    else:
        async for piece in data:
            yield piece


__all__ = ["Completed", "GuestClient", "GuestGone", "GuestTimeout", "Process"]
