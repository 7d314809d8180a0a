"""The host's I/O around `Link`: connects, keeps the beat, reconnects, and hands frames to the calls they belong to."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from leveret_guestapi.codec import (
    CANCEL,
    DATA,
    END,
    ERROR,
    FAULT,
    HOST,
    MAX_CHANNELS,
    MAX_PAYLOAD,
    PING_PAYLOAD,
    PONG,
    RESULT,
    STARTED,
    STDIN,
    Frame,
    GuestApiError,
    Opened,
    ProtocolViolation,
)
from leveret_guestapi.link import Link
from leveret_guestapi.requests import parse_error, printable

READ_SIZE = 128 * 1024
WRITE_BUFFER = 256 * 1024
# How often to look for a socket that is not there yet, and to repeat the preamble to an agent that is not there yet.
CONNECT_INTERVAL = 0.02
PREAMBLE_INTERVAL = 1.0

T = TypeVar("T")

Endpoint = socket.socket | str | Path


class GuestGone(GuestApiError):
    """Contact with the guest is lost: the stream ended, the beat stopped, or the agent has given up the session."""


class AgentGone(GuestGone):
    """The agent has ended, given up or been started anew: whatever it was doing is lost."""


class GuestTimeout(GuestGone):
    """The guest answers the beat but has not done what it must within its limit."""


class Call:
    """One request under way, seen from the host: what has come in for it and not been taken yet."""

    def __init__(self, conversation: Conversation, number: int) -> None:
        self.number = number
        self.started = False
        self.inbox: deque[tuple[int, bytes]] = deque()
        self.outcome: Frame | None = None
        self._conversation = conversation
        self._abandoned = False
        self._waiters: list[asyncio.Future[None]] = []

    async def until(self, ready: Callable[[], object], limit: float | None, what: str) -> None:
        """Wait until `ready()` is true, which it can become with any frame on this channel.

        `limit` in seconds. Raises GuestTimeout, saying that the guest did not `what`, or what ended the conversation.
        """
        try:
            async with asyncio.timeout(limit):
                while not ready():
                    self._conversation.check()
                    waiter = asyncio.get_running_loop().create_future()
                    self._waiters.append(waiter)
                    await waiter
        except TimeoutError:
            raise GuestTimeout(f"the guest did not {what} within {limit:g} s") from None

    def wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def receive(self, frame: Frame) -> None:
        if frame.kind == STARTED:
            self.started = True
        elif frame.kind == DATA and not self._abandoned:
            self.inbox.append((frame.stream, frame.payload))
        elif frame.kind in (RESULT, ERROR):
            self.outcome = frame
        self.wake()

    async def next_chunk(self, limit: float | None) -> tuple[int, bytes] | None:
        """The next (stream, bytes), whose credit goes back to the guest; None when the call is over."""
        await self.until(lambda: self.inbox or self.outcome, limit, "send output or end the command")
        if not self.inbox:
            return None
        stream, data = self.inbox.popleft()
        self._conversation.take(self.number, len(data))
        return stream, data

    async def send(self, data: bytes, limit: float | None) -> None:
        """Send on stream 0, waiting `limit` seconds for each credit. Drops the rest once the guest ends the call."""
        conversation = self._conversation
        at = 0
        while at < len(data) and not self.outcome:
            sent = conversation.send_data(self.number, STDIN, data[at : at + MAX_PAYLOAD])
            at += sent
            if not sent:
                conversation.senders.add(self)
                try:
                    await self.until(lambda: conversation.sendable(self) or self.outcome, limit, "take any data")
                finally:
                    conversation.senders.discard(self)

    def end(self) -> None:
        self._conversation.send(END, self.number, stream=STDIN)

    async def result(self, limit: float | None, what: str) -> bytes:
        """The payload of RESULT. Raises the GuestError of an ERROR."""
        await self.until(lambda: self.outcome, limit, what)
        assert self.outcome is not None
        if self.outcome.kind == ERROR:
            raise parse_error(self.outcome.payload)
        return self.outcome.payload

    def abandon(self) -> None:
        """Nobody wants the rest: have the guest stop, and drop what it still sends. Harmless after the end."""
        if not self._abandoned and self.outcome is None and self._conversation.failure is None:
            self._abandoned = True
            self.inbox.clear()
            self._conversation.send(CANCEL, self.number)


class Conversation(asyncio.BufferedProtocol):
    """One session with one guest. `run` must be running, in a task of the owner's, for anything to happen.

    Failures are never raised by `run`: they are kept in `failure`, and every wait on the session raises them.
    """

    def __init__(
        self, endpoint: Endpoint, nonce: bytes, *, beat_interval: float, beat_limit: float, reconnect_limit: float
    ) -> None:
        self.failure: GuestApiError | None = None
        self.calls: dict[int, Call] = {}
        self.senders: set[Call] = set()
        self.was_open = asyncio.Event()  # set by the first exchange of preambles, or by failure
        self._endpoint = endpoint
        self._link = Link(HOST, nonce)
        self._beat_interval = beat_interval
        self._beat_limit = beat_limit
        self._reconnect_limit = reconnect_limit
        self._transport: asyncio.Transport | None = None
        self._writable = True
        self._lost = asyncio.Event()
        self._loss: Exception | None = None
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._slots = asyncio.Semaphore(MAX_CHANNELS)
        # The beats not answered yet, oldest first: what was sent, which can't be guessed, and when.
        self._asked: deque[tuple[int, float]] = deque()

    # --- The session's course ---

    async def run(self) -> None:
        try:
            await self._connect(None)
            while True:
                await self._keep_connection()
                await self._reconnect()
        except GuestApiError as error:
            self.fail(error)
        except OSError as error:
            self.fail(GuestGone(f"no connection to the guest: {error}"))
        finally:
            self.fail(GuestGone("the conversation with the guest is closed"))

    async def _connect(self, limit: float | None) -> None:
        """Open the stream, waiting for a socket that does not exist or listen yet, and begin with the preamble."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(limit):
            while True:
                try:
                    if isinstance(self._endpoint, socket.socket):
                        await loop.create_unix_connection(lambda: self, sock=self._endpoint)
                    else:
                        await loop.create_unix_connection(lambda: self, str(self._endpoint))
                    return
                except (FileNotFoundError, ConnectionRefusedError):
                    await asyncio.sleep(CONNECT_INTERVAL)

    async def _keep_connection(self) -> None:
        """Keep the beat until the connection is lost. Raises GuestGone when the beat is not answered."""
        while True:
            try:
                async with asyncio.timeout(self._beat_interval if self._link.is_open else PREAMBLE_INTERVAL):
                    await self._lost.wait()
                return
            except TimeoutError:
                self._beat()

    def _beat(self) -> None:
        """Ask for a sign of life. Only an answer counts as one: a guest may write for ever and never read a word."""
        now = asyncio.get_running_loop().time()
        if self._asked and self.was_open.is_set() and now - self._asked[0][1] >= self._beat_limit:
            raise GuestGone(f"the guest has not answered the beat for {now - self._asked[0][1]:.1f} s")
        token = int.from_bytes(os.urandom(7), "big")
        self._asked.append((token, now))
        if self._link.is_open:
            self._link.ping(token)
        else:
            self._link.repeat_preamble()
        self._flush()

    async def _reconnect(self) -> None:
        self.check()
        if isinstance(self._endpoint, socket.socket) or not self._reconnect_limit or not self.was_open.is_set():
            reason = f": {self._loss}" if self._loss else ""
            raise AgentGone(f"the guest's end of the connection is closed{reason}")
        self._lost.clear()
        try:
            await self._connect(self._reconnect_limit)
        except TimeoutError:
            raise GuestGone(f"no connection to the guest for {self._reconnect_limit:g} s") from None

    def fail(self, failure: GuestApiError) -> None:
        """End the session for this reason, unless it has ended already."""
        if self.failure is not None:
            return
        self.failure = failure
        self._lost.set()
        self.was_open.set()
        if self._transport is not None:
            self._transport.abort()
        for call in self.calls.values():
            call.wake()
            self._slots.release()
        self.calls.clear()

    def check(self) -> None:
        """Raise what ended the session, if it has ended."""
        if self.failure is not None:
            raise type(self.failure)(*self.failure.args) from self.failure

    # --- The stream (asyncio.BufferedProtocol) ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # a stream's transport, of whatever event loop: not every one's is a subclass of asyncio's
        self._transport = stream = cast(asyncio.Transport, transport)
        self._writable = True
        self._lost.clear()
        stream.set_write_buffer_limits(WRITE_BUFFER)
        if self.failure is not None:
            stream.abort()
            return
        self._link.open_connection()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._loss = exc
        self._link.lose_connection()
        self._lost.set()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        try:
            for event in self._link.receive_data(self._buffer[:nbytes]):
                self._handle(event)
        except ProtocolViolation as violation:
            self.fail(violation)
            return
        self._flush()
        for call in list(self.senders):
            if self.sendable(call):
                call.wake()

    def _handle(self, event: Frame | Opened) -> None:
        if isinstance(event, Opened):
            if self._link.is_open:
                self._asked.clear()
                self.was_open.set()
            else:
                self.fail(AgentGone("the agent was started anew and has lost the session"))
        elif event.kind == FAULT:
            self.fail(AgentGone(f"the agent gave up: {printable(event.payload.decode('ascii', 'replace'))}"))
        elif event.kind == PONG:
            self._answered(*PING_PAYLOAD.unpack(event.payload))
        elif (call := self.calls.get(event.channel)) is not None:
            if event.kind in (RESULT, ERROR):
                del self.calls[event.channel]
                self._slots.release()
            call.receive(event)

    def _answered(self, token: int) -> None:
        """The beat of this token is answered, and so are those before it."""
        if any(token == asked for asked, _ in self._asked):
            while self._asked.popleft()[0] != token:
                pass

    def _flush(self) -> None:
        if self._transport is not None and self._writable and (data := self._link.data_to_send()):
            self._transport.write(data)

    # --- What calls do ---

    async def open_call(self, payload: bytes, limit: float) -> Call:
        """Send a REQUEST, waiting up to `limit` seconds while all channels are in use."""
        try:
            async with asyncio.timeout(limit):
                await self._slots.acquire()
        except TimeoutError:
            raise GuestTimeout(f"no channel to the guest became free within {limit:g} s") from None
        try:
            self.check()
            call = Call(self, self._on_link(lambda: self._link.open_channel(payload)))
        except BaseException:
            self._slots.release()
            raise
        self.calls[call.number] = call
        return call

    def send(self, kind: int, number: int, payload: bytes = b"", stream: int = 0) -> None:
        self.check()
        self._on_link(lambda: self._link.send(kind, number, payload, stream))

    def send_data(self, number: int, stream: int, data: bytes) -> int:
        self.check()
        return self._on_link(lambda: self._link.send_data(number, stream, data))

    def sendable(self, call: Call) -> int:
        return self._link.sendable(call.number)

    def take(self, number: int, count: int) -> None:
        if self.failure is None:
            self._on_link(lambda: self._link.take(number, count))

    def _on_link(self, action: Callable[[], T]) -> T:
        """Let the link produce frames and send them. A violation found on the way ends the session."""
        try:
            result = action()
        except ProtocolViolation as violation:
            self.fail(violation)
            raise
        self._flush()
        return result
