"""An agent written from docs/guestapi.md alone, as somebody would in another language: it shares no code with ours.

It serves one connection after the other on a socket, and knows `hello` and one fixed `exec`.
"""

from __future__ import annotations

import json
import socket
import struct
import zlib

MAGIC = bytes.fromhex("F54C4556455254FA")
OUTPUT = b"\x00all of it\n" * 150_000
OUTPUT_STREAM = 1
REQUEST, DATA, END, CREDIT, STARTED, RESULT, ERROR, PING, PONG = 1, 3, 4, 5, 6, 7, 8, 12, 13
UNSEQUENCED = (11, 12, 13, 14)
HELLO = {
    "agent": "foreign 0.1", "pid": 7, "python": "none", "system": "Plan 9", "release": "4", "machine": "mips",
    "boot_id": "", "uptime": 0.5,
}  # fmt: skip


class ForeignAgent:
    def __init__(self, port: socket.socket) -> None:
        self.port = port
        self.received = bytearray()
        self.sent = self.heard = 0
        self.credit: dict[int, int] = {}
        self.to_send: dict[int, bytes] = {}

    def serve(self) -> None:
        """Until the host hangs up."""
        self.answer_preamble()
        while True:
            head = self.take(26)
            length, channel, sequence, _, _, kind = struct.unpack(">IIQQBB", head)
            payload = self.take(length)
            if kind not in UNSEQUENCED:
                assert sequence == self.heard + 1
                self.heard = sequence
            if kind == PING:
                self.send(PONG, 0, payload)
            elif kind == REQUEST:
                self.begin(channel, json.loads(payload))
            elif kind == CREDIT:
                self.credit[channel] += int.from_bytes(payload, "big")
            self.go_on()

    def answer_preamble(self) -> None:
        while MAGIC not in self.received:
            self.receive()
        del self.received[: self.received.index(MAGIC)]
        call = self.take(44)
        role, lowest, highest, _, connection = struct.unpack(">BBBBI", call[8:16])
        assert role == 1 and lowest <= 1 <= highest and zlib.crc32(call[:40]) == int.from_bytes(call[40:], "big")
        answer = MAGIC + struct.pack(">BBBBI", 2, 1, 1, 0, connection) + call[16:32] + bytes(8)
        self.port.sendall(answer + struct.pack(">I", zlib.crc32(answer)))

    def begin(self, channel: int, request: dict[str, object]) -> None:
        if request["op"] == "hello":
            self.send(RESULT, channel, json.dumps(HELLO).encode())
        elif request["op"] == "exec":
            self.credit[channel] = 1024 * 1024
            self.send(STARTED, channel, b'{"pid": 8}')
            self.to_send[channel] = OUTPUT
        else:
            self.send(ERROR, channel, json.dumps({"errno": "ENOSYS", "message": "what?"}).encode())

    def go_on(self) -> None:
        """Send what the host's credit allows of each command's output. (No byte of it is above 0x7F: no magic.)"""
        for channel, rest in list(self.to_send.items()):
            while rest and self.credit[channel] > 26:
                piece = rest[: min(32_742, self.credit[channel] - 26)]
                self.credit[channel] -= len(piece) + 26
                self.send(DATA, channel, piece, OUTPUT_STREAM)
                rest = rest[len(piece) :]
            self.to_send[channel] = rest
            if not rest:
                del self.to_send[channel]
                self.send(END, channel, stream=OUTPUT_STREAM)
                self.send(RESULT, channel, b'{"code": 3, "timed_out": false}')

    def send(self, kind: int, channel: int, payload: bytes = b"", stream: int = 0) -> None:
        self.sent += kind not in UNSEQUENCED
        sequence = 0 if kind in UNSEQUENCED else self.sent
        self.port.sendall(struct.pack(">IIQQBB", len(payload), channel, sequence, self.heard, stream, kind) + payload)

    def take(self, count: int) -> bytes:
        while len(self.received) < count:
            self.receive()
        taken = bytes(self.received[:count])
        del self.received[:count]
        return taken

    def receive(self) -> None:
        data = self.port.recv(65536)
        if not data:
            raise EOFError
        self.received += data
