"""The codec in plain situations: opening, data, credit, and each thing a hostile peer may not do."""

from __future__ import annotations

import os
from binascii import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_guestapi import codec
from leveret_guestapi.codec import AGENT, HEADER, HOST, MAGIC, PREAMBLE, STDIN, STDOUT, Frame, Opened, ProtocolViolation
from leveret_guestapi.link import Link

NONCE = bytes(range(16))


def exchange(host: Link, agent: Link) -> tuple[list[Frame | Opened], list[Frame | Opened]]:
    """Carry everything both sides have to say, until both are silent: (what the host heard, what the agent heard)."""
    heard: tuple[list[Frame | Opened], list[Frame | Opened]] = ([], [])
    while True:
        to_agent, to_host = host.data_to_send(), agent.data_to_send()
        if not to_agent and not to_host:
            return heard
        heard[1].extend(agent.receive_data(to_agent))
        heard[0].extend(host.receive_data(to_host))


def opened_pair() -> tuple[Link, Link]:
    host, agent = Link(HOST, NONCE), Link(AGENT)
    host.open_connection()
    heard = exchange(host, agent)
    assert [type(event) for event in heard[0]] == [type(event) for event in heard[1]] == [Opened]
    return host, agent


def raw_frame(
    kind: int, channel: int = 1, payload: bytes = b"", *, sequence: int = 1, ack: int = 0, stream: int = STDOUT
) -> bytes:
    return HEADER.pack(len(payload), channel, sequence, ack, stream, kind) + payload


def payloads(events: list[Frame | Opened], kind: int = codec.DATA) -> bytes:
    return b"".join(event.payload for event in events if isinstance(event, Frame) and event.kind == kind)


def test_a_conversation_cut_into_single_bytes_is_understood() -> None:
    host, agent = Link(HOST, NONCE), Link(AGENT)
    host.open_connection()
    number = host.open_channel(b'{"op":"x"}')
    heard: list[Frame | Opened] = []
    for _ in range(2):
        for byte in host.data_to_send():
            heard += agent.receive_data(bytes([byte]))
        for byte in agent.data_to_send():
            host.receive_data(bytes([byte]))
    assert isinstance(heard[0], Opened)
    assert isinstance(heard[1], Frame)
    assert (heard[1].kind, heard[1].channel, heard[1].payload) == (codec.REQUEST, number, b'{"op":"x"}')


@given(st.binary(max_size=300), st.lists(st.integers(1, 50)))
def test_garbage_before_the_preamble_is_skipped(garbage: bytes, cuts: list[int]) -> None:
    host, agent = Link(HOST, NONCE), Link(AGENT)
    host.open_connection()
    stream = garbage + host.data_to_send()
    heard: list[Frame | Opened] = []
    for cut in [*cuts, len(stream)]:
        heard += agent.receive_data(stream[:cut])
        stream = stream[cut:]
    assert [type(event) for event in heard] == [Opened]
    answer = garbage + agent.data_to_send()
    assert [type(event) for event in host.receive_data(answer)] == [Opened]


def test_garbage_is_not_kept() -> None:
    agent = Link(AGENT)
    for _ in range(50):
        agent.receive_data(b"x" * 65536)
    assert len(agent._in) < len(MAGIC)


def test_frames_of_an_earlier_session_do_not_reach_the_next_one() -> None:
    host, agent = opened_pair()
    number = host.open_channel(b"{}")
    exchange(host, agent)
    agent.send_data(number, STDOUT, b"stale")
    stale = agent.data_to_send()
    second = Link(HOST, bytes(16))
    second.open_connection()
    heard = agent.receive_data(second.data_to_send())
    assert isinstance(heard[0], Opened)
    assert not heard[0].resumed
    assert not agent.channels.opened
    answered = second.receive_data(stale + agent.data_to_send())
    assert [type(event) for event in answered] == [Opened]
    assert second.open_channel(b"{}") == 1


@given(st.binary(max_size=60), st.integers(0, 60), st.integers(1, 20))
def test_magic_in_the_data_arrives_and_opens_nothing(data: bytes, at: int, times: int) -> None:
    data = data[:at] + MAGIC * times + data[at:]
    host, agent = opened_pair()
    number = host.open_channel(b"{}")
    exchange(host, agent)
    left, wire = data, b""
    while left:
        left = left[agent.send_data(number, STDOUT, left) :]
    wire = agent.data_to_send()
    assert MAGIC not in wire
    assert payloads(host.receive_data(wire)) == data


def test_a_preamble_in_the_middle_of_a_frame_begins_a_new_connection() -> None:
    host, agent = opened_pair()
    number = host.open_channel(b"{}")
    exchange(host, agent)
    host.send_data(number, STDIN, b"y" * 1000)
    torn = host.data_to_send()[:500]
    host.open_connection()
    heard = agent.receive_data(torn + host.data_to_send())
    assert len(heard) == 1
    assert isinstance(heard[0], Opened)
    assert heard[0].resumed
    assert payloads(exchange(host, agent)[1]) == b"y" * 1000


def test_a_repeated_preamble_changes_nothing() -> None:
    host, agent = Link(HOST, NONCE), Link(AGENT)
    host.open_connection()
    first = host.data_to_send()
    host.repeat_preamble()
    assert host.data_to_send() == first
    assert len(agent.receive_data(first + first)) == 1
    assert len(host.receive_data(agent.data_to_send())) == 1
    host.repeat_preamble()
    assert host.data_to_send() == b""


def test_an_agent_that_lost_its_answer_answers_the_repetition() -> None:
    host, agent = Link(HOST, NONCE), Link(AGENT)
    host.open_connection()
    preamble = host.data_to_send()
    agent.receive_data(preamble)
    agent.lose_connection()
    assert agent.data_to_send() == b""
    host.repeat_preamble()
    assert len(exchange(host, agent)[0]) == 1
    assert host.is_open


def test_a_damaged_preamble_is_ignored() -> None:
    host, agent = Link(HOST, NONCE), Link(AGENT)
    host.open_connection()
    whole = host.data_to_send()
    for position in range(len(MAGIC), len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        assert agent.receive_data(bytes(damaged)) == []
    assert len(agent.receive_data(whole)) == 1


@pytest.mark.parametrize("stray", [MAGIC, PREAMBLE.pack(MAGIC, AGENT, 1, 1, 0, 1, bytes(16), 0, 0)])
def test_a_guest_that_says_preambles_without_end_is_at_fault(stray: bytes) -> None:
    host, _ = opened_pair()
    host.lose_connection()
    host.open_connection()
    host.receive_data(stray * codec.MAX_STRAY_PREAMBLES)
    host.open_connection()  # each connection may be torn anew
    host.receive_data(stray * codec.MAX_STRAY_PREAMBLES)
    with pytest.raises(ProtocolViolation, match="begin no connection"):
        host.receive_data(stray * 16)


def test_an_agent_that_was_restarted_cannot_resume() -> None:
    host, agent = opened_pair()
    host.open_channel(b"{}")
    exchange(host, agent)
    host.open_connection()
    fresh = Link(AGENT)
    fresh.receive_data(host.data_to_send())
    (event,) = host.receive_data(fresh.data_to_send())
    assert isinstance(event, Opened)
    assert not event.resumed
    assert not host.is_open


def test_an_agent_that_was_restarted_tells_a_host_that_talks_on() -> None:
    host, agent = opened_pair()
    host.open_channel(b"{}")
    exchange(host, agent)
    fresh = Link(AGENT)
    for _ in range(2):
        host.ping(1)
        fresh.receive_data(host.data_to_send())
    (fault,) = host.receive_data(fresh.data_to_send())  # once is enough
    assert isinstance(fault, Frame)
    assert (fault.kind, fault.payload) == (codec.FAULT, b"this is no preamble, and there is no connection")


def test_without_a_common_version_the_host_says_so() -> None:
    host, agent = Link(HOST, NONCE), Link(AGENT)
    host.open_connection()
    preamble = bytearray(host.data_to_send())
    preamble[9:11] = bytes((7, 9))
    preamble[-4:] = crc32(preamble[:-4]).to_bytes(4, "big")
    assert agent.receive_data(bytes(preamble)) == []
    with pytest.raises(ProtocolViolation, match="no protocol version in common"):
        host.receive_data(agent.data_to_send())


def test_credit_stops_the_sender_and_lets_it_go_on() -> None:
    host, agent = opened_pair()
    number = host.open_channel(b"{}")
    exchange(host, agent)
    taken: list[bytes] = []

    def send_all() -> int:
        sent = 0
        while count := agent.send_data(number, STDOUT, b"z" * codec.MAX_PAYLOAD):
            sent += count
        return sent

    sent = send_all()
    assert 0 < sent <= codec.CHANNEL_WINDOW
    assert agent.sendable(number) == 0
    for event in exchange(host, agent)[0]:
        assert isinstance(event, Frame)
        taken.append(event.payload)
    assert agent.sendable(number) == 0
    for data in taken:
        host.take(number, len(data))
    exchange(host, agent)
    assert agent.sendable(number) > 0
    assert send_all() <= codec.CHANNEL_WINDOW


def test_a_long_request_travels_in_parts() -> None:
    host, agent = opened_pair()
    request = os.urandom(codec.MAX_REQUEST // 2).hex().encode()
    number = host.open_channel(request)
    (event,) = exchange(host, agent)[1]
    assert isinstance(event, Frame)
    assert (event.kind, event.channel, event.payload) == (codec.REQUEST, number, request)
    with pytest.raises(ValueError, match="at most"):
        host.open_channel(request + b"x")


def test_the_host_opens_no_more_channels_than_allowed() -> None:
    host, agent = opened_pair()
    for _ in range(codec.MAX_CHANNELS):
        host.open_channel(b"{}")
    with pytest.raises(ValueError, match="already under way"):
        host.open_channel(b"{}")
    exchange(host, agent)
    agent.send(codec.RESULT, 1, b"{}")
    exchange(host, agent)
    assert host.open_channel(b"{}") == codec.MAX_CHANNELS + 1


def test_what_crosses_a_result_on_the_wire_is_ignored() -> None:
    host, agent = opened_pair()
    number = host.open_channel(b"{}")
    exchange(host, agent)
    agent.send(codec.RESULT, number, b"{}")
    host.send_data(number, STDIN, b"late")
    host.send(codec.CANCEL, number)
    heard = exchange(host, agent)
    assert [event.kind for event in heard[0] if isinstance(event, Frame)] == [codec.RESULT]
    assert heard[1] == []
    host.send(codec.CONTROL, number, b"{}")
    assert host.data_to_send() == b""


def test_a_ping_comes_back_and_acknowledgements_flow_alone_when_nothing_else_does() -> None:
    host, agent = opened_pair()
    host.ping(7)
    ((pong,), _) = exchange(host, agent)
    assert isinstance(pong, Frame)
    assert (pong.kind, codec.PING_PAYLOAD.unpack(pong.payload)) == (codec.PONG, (7,))
    number = host.open_channel(b"{}")
    exchange(host, agent)
    for _ in range(codec.ACK_EVERY_FRAMES):
        agent.send_data(number, STDOUT, b"a")
    exchange(host, agent)
    assert not agent._unacknowledged


def test_an_agent_that_is_lied_to_says_so_and_takes_a_new_connection() -> None:
    host, agent = opened_pair()
    with pytest.raises(ProtocolViolation) as raised:
        agent.receive_data(raw_frame(codec.REQUEST, 1, sequence=9))
    agent.fail(str(raised.value))
    (fault,) = host.receive_data(agent.data_to_send())
    assert isinstance(fault, Frame)
    assert fault.kind == codec.FAULT
    assert fault.payload == b"frame 9 where 1 was expected"
    assert agent.receive_data(raw_frame(codec.REQUEST, 1)) == []
    host.open_connection()
    assert len(exchange(host, agent)[1]) == 1


def test_a_preamble_is_acted_on_once_though_a_violation_follows_it_at_once() -> None:
    host, agent = Link(HOST, NONCE), Link(AGENT)
    host.open_connection()
    preamble = host.data_to_send()
    with pytest.raises(ProtocolViolation):
        agent.receive_data(preamble + raw_frame(codec.REQUEST, 1, sequence=9))
    agent.fail("wrong")
    agent.data_to_send()
    assert agent.receive_data(b"") == []
    assert agent.receive_data(b"more") == []
    assert agent.data_to_send() == b""


def test_a_session_that_went_wrong_is_not_resumed_and_what_follows_is_read() -> None:
    """A preamble right behind the violation is not lost; what stood before the violation is, so nothing can go on."""
    host, agent = opened_pair()
    host.open_channel(b"{}")
    lost = host.data_to_send()
    host.open_connection()
    with pytest.raises(ProtocolViolation):
        agent.receive_data(lost + raw_frame(codec.REQUEST, 1, sequence=9) + host.data_to_send())
    agent.fail("wrong")
    (opened,) = agent.receive_data(b"")
    assert isinstance(opened, Opened)
    assert not opened.resumed
    (answered,) = host.receive_data(agent.data_to_send())
    assert isinstance(answered, Opened)
    assert not answered.resumed
    assert not host.is_open


def credit(count: int) -> bytes:
    return codec.CREDIT_PAYLOAD.pack(count)


HOSTILE = {
    "a length over the limit": raw_frame(codec.DATA, 1)[:0]
    + HEADER.pack(codec.MAX_PAYLOAD + 1, 1, 1, 0, 1, codec.DATA),
    "a length of four gigabytes": HEADER.pack(2**32 - 1, 1, 1, 0, 1, codec.DATA),
    "an unknown kind": raw_frame(99),
    "kind zero": raw_frame(0),
    "data on a channel that was never opened": raw_frame(codec.DATA, 2, b"x"),
    "data on channel zero": raw_frame(codec.DATA, 0, b"x"),
    "a result for a channel that was never opened": raw_frame(codec.RESULT, 9),
    "a request, which only the host makes": raw_frame(codec.REQUEST, 2),
    "a part, which only the host sends": raw_frame(codec.PART, 2, b"x"),
    "a cancel, which only the host sends": raw_frame(codec.CANCEL),
    "a skipped sequence number": raw_frame(codec.DATA, 1, b"x", sequence=2),
    "a sequenced kind without a number": raw_frame(codec.DATA, 1, b"x", sequence=0),
    "an unsequenced kind with a number": raw_frame(codec.PONG, 0, bytes(8), sequence=1),
    "an acknowledgement of what was never sent": raw_frame(codec.DATA, 1, b"x", ack=99),
    "an ACK without news": raw_frame(codec.ACK, 0, sequence=0),
    "a PONG nobody asked for": raw_frame(codec.PONG, 0, bytes(8), sequence=0),
    "a PING, which only the host sends": raw_frame(codec.PING, 0, bytes(8), sequence=0),
    "data on the host's stream": raw_frame(codec.DATA, 1, b"x", stream=STDIN),
    "data on an unknown stream": raw_frame(codec.DATA, 1, b"x", stream=3),
    "data without data": raw_frame(codec.DATA, 1),
    "data after the end of its stream": raw_frame(codec.END) + raw_frame(codec.DATA, 1, b"x", sequence=2),
    "a stream that ends twice": raw_frame(codec.END) + raw_frame(codec.END, sequence=2),
    "a start that is said twice": raw_frame(codec.STARTED) + raw_frame(codec.STARTED, sequence=2),
    "a second result": raw_frame(codec.RESULT) + raw_frame(codec.RESULT, sequence=2),
    "data after the result": raw_frame(codec.RESULT) + raw_frame(codec.DATA, 1, b"x", sequence=2),
    "credit for nothing": raw_frame(codec.CREDIT, 1, credit(100)),
    "credit of nothing": raw_frame(codec.CREDIT, 1, credit(0)),
    "credit that is no number": raw_frame(codec.CREDIT, 1, b"xx"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_the_host_refuses(what: str) -> None:
    host, agent = opened_pair()
    assert host.open_channel(b"{}") == 1
    exchange(host, agent)
    with pytest.raises(ProtocolViolation):
        host.receive_data(HOSTILE[what])


def test_the_host_refuses_data_beyond_its_credit() -> None:
    host, agent = opened_pair()
    host.open_channel(b"{}")
    exchange(host, agent)
    frames = codec.CHANNEL_WINDOW // codec.MAX_FRAME
    for sequence in range(1, frames + 1):
        host.receive_data(raw_frame(codec.DATA, 1, bytes(codec.MAX_PAYLOAD), sequence=sequence))
    with pytest.raises(ProtocolViolation, match="beyond its credit"):
        host.receive_data(raw_frame(codec.DATA, 1, b"x", sequence=frames + 1))


def test_the_host_refuses_a_preamble_of_another_session_once_it_is_open() -> None:
    host, _ = opened_pair()
    other = Link(HOST, bytes(16))
    other.open_connection()
    stranger = Link(AGENT)
    stranger.receive_data(other.data_to_send())
    with pytest.raises(ProtocolViolation, match="another connection"):
        host.receive_data(stranger.data_to_send())


def test_a_peer_that_never_acknowledges_is_found_out() -> None:
    host, _ = opened_pair()
    number = host.open_channel(b"{}")
    for _ in range(codec.MAX_UNACKNOWLEDGED_FRAMES - 1):
        host.send(codec.CONTROL, number, b"{}")
        host.data_to_send()
    with pytest.raises(ProtocolViolation, match="unacknowledged"):
        host.send(codec.CONTROL, number, b"{}")


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_no_bytes_do_worse_to_the_host_than_a_violation(pieces: list[bytes]) -> None:
    host, agent = opened_pair()
    host.open_channel(b"{}")
    exchange(host, agent)
    try:
        for piece in pieces:
            host.receive_data(piece)
    except ProtocolViolation:
        pass
    assert len(host._in) <= codec.MAX_FRAME + sum(map(len, pieces))


KINDS = st.sampled_from([*codec.KIND_NAMES, 0, 15, 255])


@given(st.lists(st.tuples(KINDS, st.integers(0, 3), st.binary(max_size=12), st.integers(0, 3)), max_size=12))
def test_no_well_formed_frames_do_worse_to_the_host_than_a_violation(frames: list[tuple[int, int, bytes, int]]) -> None:
    host, agent = opened_pair()
    for _ in range(2):
        host.open_channel(b"{}")
    exchange(host, agent)
    sequence = 0
    try:
        for kind, channel, payload, stream in frames:
            unsequenced = kind in codec.UNSEQUENCED
            sequence += not unsequenced
            number = 0 if unsequenced else sequence
            host.receive_data(raw_frame(kind, channel, payload, sequence=number, stream=stream))
            for known in host.channels.opened.values():
                assert 0 <= known.may_send <= codec.CHANNEL_WINDOW
                assert 0 <= known.may_receive <= codec.CHANNEL_WINDOW
    except ProtocolViolation:
        pass


def test_local_misuse_is_a_value_error() -> None:
    host, agent = opened_pair()
    with pytest.raises(ValueError, match="idle"):
        agent.send(codec.RESULT, 1, b"{}")
    number = host.open_channel(b"{}")
    host.send(codec.END, number, stream=STDIN)
    with pytest.raises(ValueError, match="has ended"):
        host.send_data(number, STDIN, b"x")
    with pytest.raises(ValueError, match="16 bytes"):
        Link(HOST, b"short")


def test_the_preamble_and_the_frame_have_the_size_the_manual_gives() -> None:
    assert PREAMBLE.size == 44
    assert HEADER.size == 26
    assert not any(byte < 0x20 for byte in MAGIC)
