"""An agent at its worst: the real one, taken from the guest it runs in, with one part of its manners gone.

Runs inside a guest as process 1, in the real agent's place: `python3 -c SOURCE BEHAVIOUR`, a behaviour being the name
of a function in this file. Like the real one it needs Python 3.7 and the standard library alone.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

PORT = "/dev/virtio-ports/org.leveret.guest.0"
FOREVER = 10_000.0

real: dict[str, Any] = {}


def load() -> None:
    """The real agent, without starting it: `real` has the names of its main part, and the protocol's."""
    with open("/run/leveret/agent.py") as file:
        exec(compile(file.read(), file.name, "exec"), {"__name__": "agent"})
    from leveret_guestapi import agent_main, codec

    global real
    real = vars(agent_main)
    real.update({**vars(codec), **real})


# --- Tools ---


def instead_of(operation: str, act: Callable[[Any, int], None]) -> None:
    """Have requests for `operation` answered by `act(agent, channel)`; everything else is done honestly."""
    honest = real["Agent"].begin

    def begin(agent: Any, channel: int, payload: bytes) -> None:
        if json.loads(payload)["op"] == operation:
            act(agent, channel)
        else:
            honest(agent, channel, payload)

    real["Agent"].begin = begin


def pour(agent: Any, pieces: Iterable[bytes]) -> None:
    """Write all of it to the port, whatever the host wants; read nothing meanwhile. Then be silent."""
    os.set_blocking(agent.fd, True)
    for piece in pieces:
        while piece:
            piece = piece[os.write(agent.fd, piece) :]
    time.sleep(FOREVER)


def frame(agent: Any, kind: str, channel: int, payload: bytes, stream: int = 0) -> bytes:
    """A frame with the right numbers."""
    link = agent.link
    link._sent += 1
    head = real["HEADER"].pack(len(payload), channel, link._sent, link._received, stream, real[kind])
    return bytes(head) + payload


def for_ever(piece: bytes) -> Iterable[bytes]:
    while True:
        yield piece


def sysrq(letter: str) -> None:
    with open("/proc/sysrq-trigger", "w") as trigger:
        trigger.write(letter)
    time.sleep(FOREVER)


# --- Behaviours ---


def never_opens_its_port() -> None:
    real["open_port"] = lambda path: time.sleep(FOREVER)


def never_says_hello() -> None:
    real["Agent"].receive = lambda agent, fd: os.read(agent.fd, 65536)


def answers_hello_and_nothing_more() -> None:
    honest = real["Agent"].handle

    def handle(agent: Any, asked: Any) -> None:
        honest(agent, asked)
        agent.transmit()
        time.sleep(FOREVER)

    real["Agent"].handle = handle


def answers_nothing_but_the_beat() -> None:
    instead_of("exec", lambda agent, channel: None)


def falls_silent() -> None:
    instead_of("exec", lambda agent, channel: time.sleep(FOREVER))


def never_ends_a_command() -> None:
    """It is not to be cancelled either: the request is under way, and no task of the agent's belongs to it."""
    instead_of("exec", lambda agent, channel: agent.reply(real["STARTED"], channel, {"pid": 1}))


def floods_with_noise() -> None:
    noise = bytes(random.getrandbits(8) for _ in range(32768))
    instead_of("exec", lambda agent, channel: pour(agent, for_ever(noise)))


def floods_with_preambles() -> None:
    instead_of("exec", lambda agent, channel: pour(agent, for_ever(real["MAGIC"] * 4096)))


def lies_in_lengths() -> None:
    instead_of("exec", lambda agent, channel: pour(agent, [b"\x7f" + frame(agent, "DATA", channel, b"x" * 999)[1:]]))


def sends_half_a_frame_byte_by_byte() -> None:
    def drip(agent: Any, channel: int) -> None:
        whole = frame(agent, "DATA", channel, bytes(30_000), stream=1)

        def bytes_of_it() -> Iterable[bytes]:
            for at in range(len(whole)):
                time.sleep(0.05)
                yield whole[at : at + 1]

        pour(agent, bytes_of_it())

    instead_of("exec", drip)


def writes_past_its_credit() -> None:
    """Where nobody takes any output, the credit of the beginning is all there is."""

    def act(agent: Any, channel: int) -> None:
        pour(agent, (frame(agent, "DATA", channel, bytes(30_000), stream=1) for _ in range(40)))

    instead_of("write-file", act)


def writes_and_never_reads() -> None:
    """Its output stays within the credit that it can reckon with, and acknowledges what it has never read."""

    def act(agent: Any, channel: int) -> None:
        def output() -> Iterable[bytes]:
            yield frame(agent, "STARTED", channel, b'{"pid":1}')
            for sent in range(100_000):
                time.sleep(0.02)
                if sent > 12 and sent % 6 == 0:  # the host returns credit for every 128 KiB and more
                    agent.link._received += 1
                yield frame(agent, "DATA", channel, bytes(30_000), stream=1)

        pour(agent, output())

    instead_of("exec", act)


def acknowledges_nothing() -> None:
    honest = real["Link"]._frame

    def _frame(link: Any, *fields: Any) -> bytes:
        made = bytearray(honest(link, *fields))
        made[16:24] = bytes(8)
        return bytes(made)

    real["Link"]._frame = _frame


def reopens_its_port_without_end() -> None:
    def act(agent: Any, channel: int) -> None:
        while True:
            os.close(agent.fd)
            agent.fd = os.open(PORT, os.O_RDWR | os.O_NONBLOCK)

    instead_of("exec", act)


def complains_at_length() -> None:
    wild = "\x1b[2J\x00\u202e" * 600

    def act(agent: Any, channel: int) -> None:
        agent.reply(real["ERROR"], channel, {"errno": wild, "message": wild})

    instead_of("exec", act)


def lies_of_a_files_length() -> None:
    def act(agent: Any, channel: int) -> None:
        agent.link.send_data(channel, real["STDOUT"], b"seven")
        agent.reply(real["RESULT"], channel, {"size": 10**15})

    instead_of("read-file", act)


def sends_more_of_a_file_than_it_may() -> None:
    def act(agent: Any, channel: int) -> None:
        pour(agent, (frame(agent, "DATA", channel, bytes(30_000), stream=1) for _ in range(8)))

    instead_of("read-file", act)


def holds_the_clock_back() -> None:
    def hold() -> None:
        while True:
            time.clock_settime(time.CLOCK_REALTIME, 1.0)
            time.sleep(0.1)

    def act(agent: Any, channel: int) -> None:
        threading.Thread(target=hold, daemon=True).start()
        agent.reply(real["STARTED"], channel, {"pid": 1})

    instead_of("exec", act)


def floods_its_console() -> None:
    """Otherwise honest: the task must not suffer from it either."""

    def flood() -> None:
        with open("/dev/console", "wb", buffering=0) as console:
            while True:
                console.write(b"\x1b[2J\xff out of space " * 200)

    threading.Thread(target=flood, daemon=True).start()


def powers_off() -> None:
    instead_of("exec", lambda agent, channel: sysrq("o"))


def panics() -> None:
    instead_of("exec", lambda agent, channel: sysrq("c"))


def reboots() -> None:
    instead_of("exec", lambda agent, channel: sysrq("b"))


def ends() -> None:
    """Process 1 that exits takes the kernel along."""
    instead_of("exec", lambda agent, channel: os._exit(0))


if __name__ == "__main__":
    load()
    globals()[sys.argv[1]]()
    real["main"](["--port", PORT])
