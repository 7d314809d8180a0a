"""What may be said between host and agent: the limits, the preamble, the frame, the table of channel states.

Nothing else decides it. `link.py` acts on it, for both sides; `docs/guestapi.md` says the same to people who write an
agent of their own. The file becomes a part of the agent (see `agent.py`): Python 3.7, standard library alone.
"""

from __future__ import annotations

import struct

# --- Limits. All are part of the contract; changing one means a new protocol version. ---

PROTOCOL_VERSION = 1
# QEMU hands a guest's write to the host in pieces of at most 32 KiB; larger frames only cost memory.
MAX_FRAME = 32 * 1024
# What one direction of one channel may have under way before the receiver returns credit, in wire bytes.
CHANNEL_WINDOW = 1024 * 1024
# The receiver of DATA returns credit in batches of at least this much: each costs both sides a frame.
CREDIT_EVERY_BYTES = CHANNEL_WINDOW // 8
# What one side may have sent and not seen acknowledged, over all channels: the bound of its replay buffer.
LINK_WINDOW = 4 * 1024 * 1024
LINK_WINDOW_FRAMES = 4096
# Past this many, a peer that takes but never acknowledges is at fault (frames that need no credit count, too).
MAX_UNACKNOWLEDGED_FRAMES = 2 * LINK_WINDOW_FRAMES
# A receiver acknowledges at the latest after this much; an eighth of the window keeps a sender from ever waiting.
ACK_EVERY_BYTES = LINK_WINDOW // 8
ACK_EVERY_FRAMES = 64
# The longest request (an argument list with its environment), assembled from PART frames.
MAX_REQUEST = 256 * 1024
MAX_CHANNELS = 64
# What a connection may bring of damaged, stale and repeated preambles: the ends of earlier ones, and echoes.
MAX_STRAY_PREAMBLES = 256

# --- Preamble: how a connection begins, and the only thing a side that lost its place looks for. ---

# No byte below 0x20 and two that no UTF-8 text holds. `Link.send_data` never lets it appear inside a frame.
MAGIC = b"\xf5LEVERT\xfa"
# magic, role, lowest version, highest version, resumed, connection, nonce, last sequence number received, CRC-32.
PREAMBLE = struct.Struct(">8sBBBBI16sQI")
NONCE_SIZE = 16

# --- Frame: this header, then the payload. ---

# payload length, channel, sequence number (0: not sequenced), acknowledged, stream, kind
HEADER = struct.Struct(">IIQQBB")
HEADER_SIZE = HEADER.size
MAX_PAYLOAD = MAX_FRAME - HEADER_SIZE
CREDIT_PAYLOAD = struct.Struct(">I")
PING_PAYLOAD = struct.Struct(">Q")

HOST, AGENT = 1, 2
STDIN, STDOUT, STDERR = 0, 1, 2
STREAMS = {HOST: (STDIN,), AGENT: (STDOUT, STDERR)}

REQUEST = 1  # host: opens the channel; JSON
CONTROL = 2  # host: signal, resize; JSON
DATA = 3  # both: bytes of one stream; costs credit
END = 4  # both: the stream is over
CREDIT = 5  # both: the receiver of DATA has taken so many wire bytes
STARTED = 6  # agent: the request is under way; JSON
RESULT = 7  # agent: the request is done, the channel closed; JSON
ERROR = 8  # agent: the request failed, the channel closed; JSON
CANCEL = 9  # host: stop the request; its RESULT or ERROR still follows
PART = 10  # host: the beginning of a REQUEST that the next frame continues
ACK = 11  # both, not sequenced: nothing but the acknowledgement in its header
PING = 12  # host, not sequenced
PONG = 13  # agent, not sequenced: the payload of the PING
FAULT = 14  # agent, not sequenced: what the host did wrong, as text; the agent waits for a new preamble

KIND_NAMES = {
    REQUEST: "REQUEST",
    CONTROL: "CONTROL",
    DATA: "DATA",
    END: "END",
    CREDIT: "CREDIT",
    STARTED: "STARTED",
    RESULT: "RESULT",
    ERROR: "ERROR",
    CANCEL: "CANCEL",
    PART: "PART",
    ACK: "ACK",
    PING: "PING",
    PONG: "PONG",
    FAULT: "FAULT",
}
UNSEQUENCED = (ACK, PING, PONG, FAULT)
UNSEQUENCED_SENDERS = {ACK: (HOST, AGENT), PING: (HOST,), PONG: (AGENT,), FAULT: (AGENT,)}

# --- The life of a channel. ---
#
# The rules:
# 1. The host opens a channel with REQUEST; numbers count up from 1 and are never used twice in a session.
# 2. The agent may say STARTED once, and closes the channel with exactly one RESULT or ERROR.
# 3. Both send DATA while the channel is open, each within its credit, no more on a stream after its END.
# 4. After CANCEL the host sends only credit; what the agent still says is read and dropped.
# 5. The host may not know yet that the agent has closed: what crosses the RESULT on the wire is ignored.
#    The agent, which does the closing, has no such excuse.

IDLE, REQUESTED, RUNNING, CANCELLED, STOPPING, CLOSED = (
    "idle",
    "requested",
    "running",
    "cancelled",
    "stopping",
    "closed",
)

TRANSITIONS = {
    IDLE: {(HOST, REQUEST): REQUESTED},
    REQUESTED: {
        (HOST, CONTROL): REQUESTED,
        (HOST, DATA): REQUESTED,
        (HOST, END): REQUESTED,
        (HOST, CREDIT): REQUESTED,
        (HOST, CANCEL): CANCELLED,
        (AGENT, STARTED): RUNNING,
        (AGENT, DATA): REQUESTED,
        (AGENT, END): REQUESTED,
        (AGENT, CREDIT): REQUESTED,
        (AGENT, RESULT): CLOSED,
        (AGENT, ERROR): CLOSED,
    },
    RUNNING: {
        (HOST, CONTROL): RUNNING,
        (HOST, DATA): RUNNING,
        (HOST, END): RUNNING,
        (HOST, CREDIT): RUNNING,
        (HOST, CANCEL): STOPPING,
        (AGENT, DATA): RUNNING,
        (AGENT, END): RUNNING,
        (AGENT, CREDIT): RUNNING,
        (AGENT, RESULT): CLOSED,
        (AGENT, ERROR): CLOSED,
    },
    # Cancelled before STARTED was seen: it may still come, once.
    CANCELLED: {
        (HOST, CREDIT): CANCELLED,
        (AGENT, STARTED): STOPPING,
        (AGENT, DATA): CANCELLED,
        (AGENT, END): CANCELLED,
        (AGENT, CREDIT): CANCELLED,
        (AGENT, RESULT): CLOSED,
        (AGENT, ERROR): CLOSED,
    },
    STOPPING: {
        (HOST, CREDIT): STOPPING,
        (AGENT, DATA): STOPPING,
        (AGENT, END): STOPPING,
        (AGENT, CREDIT): STOPPING,
        (AGENT, RESULT): CLOSED,
        (AGENT, ERROR): CLOSED,
    },
    CLOSED: {
        (HOST, CONTROL): CLOSED,
        (HOST, DATA): CLOSED,
        (HOST, END): CLOSED,
        (HOST, CREDIT): CLOSED,
        (HOST, CANCEL): CLOSED,
    },
}


class GuestApiError(Exception):
    """Whatever goes wrong between host and guest."""


class ProtocolViolation(GuestApiError):
    """The peer sent bytes the protocol forbids; nothing it says can be trusted any more."""


class Frame:
    """An event: the peer sent this frame. `stream` has a meaning for DATA and END alone."""

    __slots__ = ("channel", "kind", "payload", "stream")

    def __init__(self, kind: int, channel: int, stream: int, payload: bytes) -> None:
        self.kind = kind
        self.channel = channel
        self.stream = stream
        self.payload = payload

    def __repr__(self) -> str:
        name = KIND_NAMES.get(self.kind, str(self.kind))
        return f"<Frame {name} channel={self.channel} stream={self.stream} {len(self.payload)} bytes>"


class Opened:
    """An event: both preambles have been exchanged. `resumed` is false when the agent has begun a fresh session."""

    __slots__ = ("resumed", "version")

    def __init__(self, resumed: bool, version: int) -> None:
        self.resumed = resumed
        self.version = version
