"""A small client of QEMU's machine protocol (QMP; docs/interop/qmp-spec of QEMU): commands, answers and events."""

import asyncio
import itertools
import json
import socket
from collections.abc import Callable
from typing import Any, Self

from leveret_worker.qemu.errors import MachineError

MAX_MESSAGE = 1024 * 1024
"""Bytes of the longest line read: QEMU is not trusted more than the guest that may have taken it over."""


class Monitor:
    """One QMP connection. `run` reads it and must be running while `execute` waits."""

    def __init__(
        self,
        control: socket.socket,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_event: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self._control = control
        self._reader = reader
        self._writer = writer
        self._on_event = on_event
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._closed = False

    @classmethod
    async def over(cls, control: socket.socket, on_event: Callable[[str, dict[str, Any]], None]) -> Self:
        """A monitor over the connected Unix socket `control`; `on_event` is called with each event's name and data."""
        reader, writer = await asyncio.open_unix_connection(sock=control, limit=MAX_MESSAGE)
        return cls(control, reader, writer, on_event)

    async def run(self) -> None:
        """Read until QEMU closes the connection or breaks the protocol; whoever waits then gets a MachineError."""
        reason = "QEMU closed its monitor"
        try:
            while line := await self._reader.readline():
                self._take(line)
        except (ValueError, RecursionError) as error:
            reason = f"QEMU's monitor sent what is no QMP: {error}"
        except OSError:  # QEMU died with a command of ours unread
            pass
        finally:
            self._closed = True
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(MachineError(reason))

    async def execute(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        timeout: float = 10.0,
        descriptor: int | None = None,
    ) -> Any:
        """Run a QMP command and give its return value.

        `descriptor`: an open file of ours that goes with the command; QEMU gets a descriptor of its own for it.

        Raises:
            MachineError: QEMU refused it, went away, or did not answer within `timeout` seconds.
        """
        if self._closed:
            raise MachineError(f"QMP {command}: QEMU closed its monitor")
        number = next(self._numbers)
        future = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        message = {"execute": command, "id": number} | ({"arguments": arguments} if arguments else {})
        try:
            async with asyncio.timeout(timeout):
                await self._send(json.dumps(message).encode() + b"\n", descriptor)
                return await future
        except TimeoutError as error:
            raise MachineError(f"QMP {command}: no answer within {timeout:g} s") from error
        except OSError as error:
            raise MachineError(f"QMP {command}: QEMU closed its monitor") from error
        finally:
            del self._waiting[number]

    async def _send(self, line: bytes, descriptor: int | None) -> None:
        if descriptor is None:
            self._writer.write(line)
            await self._writer.drain()
        elif self._writer.transport.get_write_buffer_size():
            raise MachineError("QEMU does not read its monitor")
        else:  # streams can't send descriptors
            socket.send_fds(self._control, [line], [descriptor])

    async def close(self) -> None:
        """Close the connection; no event is told any more."""
        # Whoever listens holds this monitor: without the cycle, all that a machine kept is gone with its last user.
        self._on_event = lambda name, data: None
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:  # QEMU was quicker, or was killed in the middle of an answer
            return

    def _take(self, line: bytes) -> None:
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError("a message that is no object")
        if isinstance(name := message.get("event"), str):
            data = message.get("data")
            self._on_event(name, data if isinstance(data, dict) else {})
            return
        future = self._waiting.get(message.get("id", 0))
        if future is None or future.done():
            return
        if "error" in message:
            future.set_exception(MachineError(f"QEMU refused a command: {message['error']}"))
        else:
            future.set_result(message.get("return"))
