"""The codec against a model: whatever is sent arrives once and in order, however the stream is cut and resumed."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from leveret_guestapi import codec
from leveret_guestapi.codec import AGENT, HOST, MAGIC, STDIN, STDOUT, Frame
from leveret_guestapi.link import Link

DATA = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.just(MAGIC * 3),
    st.integers(1, 3 * codec.MAX_PAYLOAD).map(lambda size: b"d" * size),
)


class LinkMachine(RuleBasedStateMachine):
    """Two links, a wire each way, and a memory of all that was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.host = Link(HOST, bytes(16))
        self.agent = Link(AGENT)
        self.links = {HOST: self.host, AGENT: self.agent}
        self.wires = {HOST: bytearray(), AGENT: bytearray()}  # what this side has sent and the other not yet read
        self.sent: dict[tuple[int, int], bytes] = {}
        self.heard: dict[tuple[int, int], bytes] = {}
        self.untaken: dict[tuple[int, int], list[int]] = {}
        self.host.open_connection()

    def transmit(self, side: int) -> None:
        self.wires[side] += self.links[side].data_to_send()

    def deliver(self, side: int, count: int) -> None:
        wire, other = self.wires[side], AGENT if side == HOST else HOST
        for event in self.links[other].receive_data(bytes(wire[:count])):
            if isinstance(event, Frame) and event.kind == codec.DATA:
                key = (side, event.channel)
                self.heard[key] = self.heard.get(key, b"") + event.payload
                self.untaken.setdefault(key, []).append(len(event.payload))
        del wire[:count]

    @rule()
    def open_channel(self) -> None:
        if len(self.host.channels.opened) < 3:
            self.host.open_channel(b'{"op":"model"}')

    @rule(side=st.sampled_from([HOST, AGENT]), data=DATA, which=st.integers(0, 2))
    def send(self, side: int, data: bytes, which: int) -> None:
        link = self.links[side]
        channels = sorted(link.channels.opened)
        if not channels:
            return
        number = channels[which % len(channels)]
        while data:
            count = link.send_data(number, STDIN if side == HOST else STDOUT, data)
            if not count:
                return
            self.sent[side, number] = self.sent.get((side, number), b"") + data[:count]
            data = data[count:]

    @rule(side=st.sampled_from([HOST, AGENT]))
    def take(self, side: int) -> None:
        for (sender, number), lengths in self.untaken.items():
            if sender != side:
                for length in lengths:
                    self.links[side].take(number, length)
                lengths.clear()

    @rule(side=st.sampled_from([HOST, AGENT]), count=st.one_of(st.integers(1, 60), st.integers(1, 100_000)))
    def carry(self, side: int, count: int) -> None:
        self.transmit(side)
        self.deliver(side, count)

    @rule(kept=st.integers(0, 50_000), lost=st.integers(0, 50_000), torn=st.booleans())
    def reconnect(self, kept: int, lost: int, torn: bool) -> None:
        """The host's end breaks: what is under way is lost in part, and what is left of it reaches the next opener."""
        for side in (HOST, AGENT):
            self.transmit(side)
        del self.wires[HOST][kept:]
        del self.wires[AGENT][kept : kept + lost]
        if torn:
            self.agent.lose_connection()
        self.host.open_connection()

    @precondition(lambda self: self.host.is_open)
    @rule()
    def ping(self) -> None:
        self.host.ping(1)

    @invariant()
    def what_is_heard_was_said(self) -> None:
        for key, heard in self.heard.items():
            assert self.sent[key].startswith(heard)

    @invariant()
    def nobody_exceeds_credit_or_window(self) -> None:
        for side, link in self.links.items():
            assert link._unacknowledged_bytes <= codec.LINK_WINDOW + codec.CHANNEL_WINDOW
            for number, channel in link.channels.opened.items():
                under_way = len(self.sent.get((side, number), b"")) - len(self.heard.get((side, number), b""))
                assert under_way <= codec.CHANNEL_WINDOW - channel.may_send <= codec.CHANNEL_WINDOW

    def teardown(self) -> None:
        """A last connection that nobody cuts brings everything across."""
        self.wires[HOST].clear()
        self.host.open_connection()
        while True:
            for side in (HOST, AGENT):
                self.transmit(side)
            if not any(self.wires.values()):
                break
            for side in (HOST, AGENT):
                self.deliver(side, len(self.wires[side]))
        assert self.heard == self.sent
        assert set(self.host.channels.opened) == set(self.agent.channels.opened)


TestLinkModel = LinkMachine.TestCase
TestLinkModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
