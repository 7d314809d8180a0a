"""The channels of a session, as one side knows them: their states, their streams' ends, and the credit both ways.

A part of the agent, like `codec.py`: Python 3.7, standard library alone.
"""

from __future__ import annotations

from leveret_guestapi.codec import (
    CHANNEL_WINDOW,
    CLOSED,
    CREDIT_PAYLOAD,
    HEADER_SIZE,
    HOST,
    IDLE,
    KIND_NAMES,
    MAX_CHANNELS,
    STREAMS,
    TRANSITIONS,
    ProtocolViolation,
)


class Channel:
    """One channel. Credit is counted in wire bytes."""

    __slots__ = ("ended_here", "ended_there", "may_receive", "may_send", "number", "owed", "state")

    def __init__(self, number: int) -> None:
        self.number = number
        self.state = IDLE
        self.may_send = CHANNEL_WINDOW
        self.may_receive = CHANNEL_WINDOW
        self.owed = 0
        self.ended_here: set[int] = set()
        self.ended_there: set[int] = set()

    def receive_data(self, sender: int, stream: int, length: int) -> None:
        self.check_stream(sender, stream)
        if not length:
            raise ProtocolViolation(f"DATA without data on channel {self.number}")
        self.may_receive -= length + HEADER_SIZE
        if self.may_receive < 0:
            raise ProtocolViolation(f"DATA beyond its credit on channel {self.number}")

    def receive_end(self, sender: int, stream: int) -> None:
        self.check_stream(sender, stream)
        self.ended_there.add(stream)

    def check_stream(self, sender: int, stream: int) -> None:
        if stream not in STREAMS[sender] or stream in self.ended_there:
            raise ProtocolViolation(f"nothing more can come on stream {stream} of channel {self.number}")

    def receive_credit(self, payload: bytes) -> None:
        if len(payload) != CREDIT_PAYLOAD.size:
            raise ProtocolViolation(f"a CREDIT of {len(payload)} bytes")
        (count,) = CREDIT_PAYLOAD.unpack(payload)
        # Credit returns whole frames and never more than was spent, so it cannot come without end.
        if count <= HEADER_SIZE or self.may_send + count > CHANNEL_WINDOW:
            raise ProtocolViolation(f"credit for {count} bytes that were never sent")
        self.may_send += count


class Channels:
    """The open channels of a session, and by the table of states what may be said on them next.

    `role` is our own: HOST or AGENT.
    """

    def __init__(self, role: int) -> None:
        self.role = role
        self.opened: dict[int, Channel] = {}
        self.last = 0  # the highest number used

    def get(self, number: int) -> Channel | None:
        return self.opened.get(number)

    def is_closed(self, number: int) -> bool:
        return 0 < number <= self.last and number not in self.opened

    def move(self, sender: int, kind: int, number: int) -> Channel:
        """Move the channel by the table. No such move: ProtocolViolation if the peer made it, ValueError if we did."""
        channel = self.opened.get(number)
        if channel is None:
            channel = self.begin(sender, kind, number)
        following = TRANSITIONS[channel.state].get((sender, kind))
        if following is None:
            raise self.refusal(sender, kind, number, channel.state)
        if following == CLOSED:
            del self.opened[number]
        channel.state = following
        return channel

    def begin(self, sender: int, kind: int, number: int) -> Channel:
        if self.is_closed(number):
            raise self.refusal(sender, kind, number, CLOSED)
        if (sender, kind) not in TRANSITIONS[IDLE] or number != self.last + 1 or len(self.opened) >= MAX_CHANNELS:
            raise self.refusal(sender, kind, number, IDLE)
        self.last = number
        channel = self.opened[number] = Channel(number)
        return channel

    def refusal(self, sender: int, kind: int, number: int, state: str) -> Exception:
        what = f"{KIND_NAMES.get(kind, kind)} on channel {number}, which is {state}"
        return ValueError(what) if sender == self.role else ProtocolViolation(what)

    def ignored(self, sender: int, kind: int, number: int) -> bool:
        """Whether this is said to a channel that is closed by one that need not know it yet: the host."""
        return sender == HOST and self.is_closed(number) and (sender, kind) in TRANSITIONS[CLOSED]
