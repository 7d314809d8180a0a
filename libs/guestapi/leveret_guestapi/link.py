"""The codec at work, without I/O: bytes in, events out, and the other way round. Host and agent both run `Link`.

A part of the agent, like `codec.py`: Python 3.7, standard library alone.
"""

from __future__ import annotations

from binascii import crc32

from leveret_guestapi.channels import (
    Channels,
)
from leveret_guestapi.codec import (
    ACK,
    ACK_EVERY_BYTES,
    ACK_EVERY_FRAMES,
    AGENT,
    CREDIT,
    CREDIT_EVERY_BYTES,
    CREDIT_PAYLOAD,
    DATA,
    END,
    FAULT,
    HEADER,
    HEADER_SIZE,
    HOST,
    KIND_NAMES,
    LINK_WINDOW,
    LINK_WINDOW_FRAMES,
    MAGIC,
    MAX_CHANNELS,
    MAX_FRAME,
    MAX_PAYLOAD,
    MAX_REQUEST,
    MAX_STRAY_PREAMBLES,
    MAX_UNACKNOWLEDGED_FRAMES,
    NONCE_SIZE,
    PART,
    PING,
    PING_PAYLOAD,
    PONG,
    PREAMBLE,
    PROTOCOL_VERSION,
    REQUEST,
    UNSEQUENCED,
    UNSEQUENCED_SENDERS,
    Frame,
    Opened,
    ProtocolViolation,
)
from leveret_guestapi.light import (
    deque,
)


class Link:
    """One side of the conversation, over as many connections as it takes.

    `role` is HOST or AGENT. The host names the session by `nonce` (16 random bytes) and opens every connection.
    Bytes from the peer go into `receive_data`, which returns events; bytes for the peer come out of `data_to_send`.
    Sequenced frames are kept until acknowledged and sent again when a later connection resumes the session.

    `receive_data` raises ProtocolViolation; the link is then of no use until the next preamble.
    """

    def __init__(self, role: int, nonce: bytes = b"") -> None:
        if role == HOST and len(nonce) != NONCE_SIZE:
            raise ValueError(f"the nonce of a session has {NONCE_SIZE} bytes")
        self.role = role
        self.peer = AGENT if role == HOST else HOST
        self.nonce = nonce
        self.connection = 0
        self.is_open = False
        self._complained = False  # since the last connection, to a host that may think it has one
        self._strays = 0
        self._in = bytearray()
        self._scanned = 0  # so many bytes at the start of _in are known to begin no MAGIC
        self._parsed = 0  # so many belong to frames that were acted on
        self._out: deque[bytes] = deque()
        self._begin_session()

    def _begin_session(self) -> None:
        self.channels = Channels(self.role)
        self._parts = bytearray()
        self._parts_channel = 0
        self._sent = 0
        self._received = 0
        self._acknowledged = 0  # the highest number of ours the peer has
        self._told = 0  # the highest number of the peer's that we have acknowledged
        self._untold_bytes = 0
        self._unacknowledged: deque[tuple[int, bytes]] = deque()
        self._unacknowledged_bytes = 0
        self._pings = 0
        self._established = False

    # --- Connections ---

    def open_connection(self) -> None:
        """Host: begin a connection, the first or one after a loss, with a preamble; bytes not yet sent are dropped."""
        assert self.role == HOST
        self.connection += 1
        self._pings = 0
        self._strays = 0
        self.lose_connection()
        self._out.append(self._preamble(1, PROTOCOL_VERSION, False))

    def repeat_preamble(self) -> None:
        """Host: say the preamble again, for an agent that was not there yet; one that has it takes no notice."""
        if self.role == HOST and not self.is_open and not self._out:
            self._out.append(self._preamble(1, PROTOCOL_VERSION, False))

    def lose_connection(self) -> None:
        """Forget what is half sent and half received; the session's state stays for the next connection."""
        self.is_open = False
        self._in.clear()
        self._scanned = 0
        self._out.clear()

    def fail(self, reason: str) -> None:
        """Agent: tell the host what it did wrong; the session is over, and only a new preamble is listened to."""
        self.is_open = False
        self.nonce = b""
        self._complain(reason)

    def _complain(self, reason: str) -> None:
        self._complained = True
        self._out.append(self._frame(FAULT, 0, 0, 0, reason.encode("ascii", "replace")[:1000]))

    def _preamble(self, low: int, high: int, resumed: bool) -> bytes:
        fields = (MAGIC, self.role, low, high, int(resumed), self.connection, self.nonce, self._received)
        checked = PREAMBLE.pack(*fields, 0)[:-4]
        return checked + crc32(checked).to_bytes(4, "big")

    def _receive_preamble(self, raw: bytes) -> Opened | None:
        """Act on a preamble; None when it is damaged, stale or said twice."""
        _, role, low, high, resumed, connection, nonce, acknowledged, checksum = PREAMBLE.unpack(raw)
        if checksum != crc32(raw[:-4]) or role != self.peer:
            self.is_open = False
            return None
        if self.role == HOST:
            return self._receive_answer(low, bool(resumed), connection, nonce, acknowledged)
        return self._receive_call(low, high, connection, nonce, acknowledged)

    def _count_stray(self) -> None:
        """Each costs the host a checksum, and a guest could send nothing else."""
        self._strays += 1
        if self.role == HOST and self._strays > MAX_STRAY_PREAMBLES:
            raise ProtocolViolation(f"{self._strays} preambles that begin no connection")

    def _receive_answer(
        self, version: int, resumed: bool, connection: int, nonce: bytes, acknowledged: int
    ) -> Opened | None:
        if nonce != self.nonce or connection != self.connection:
            if self.is_open:
                raise ProtocolViolation("a preamble of another connection in the middle of this one")
            return None
        if self.is_open:
            return None
        if version != PROTOCOL_VERSION:
            raise ProtocolViolation(f"no protocol version in common: the agent does not speak {PROTOCOL_VERSION}")
        # An agent that does not know the session is fine the first time; later it means that all is lost.
        if resumed or not self._established:
            self._acknowledge(acknowledged)
            self._resume()
        return Opened(resumed, version)

    def _receive_call(self, low: int, high: int, connection: int, nonce: bytes, acknowledged: int) -> Opened | None:
        resumed = nonce == self.nonce
        if resumed and (connection < self.connection or (connection == self.connection and self.is_open)):
            return None
        if not resumed:
            self._begin_session()
            self.nonce = nonce
        self.connection = connection
        self._out.clear()
        if not low <= PROTOCOL_VERSION <= high:
            self._out.append(self._preamble(0, 0, resumed))
            self.is_open = False
            return None
        self._out.append(self._preamble(PROTOCOL_VERSION, PROTOCOL_VERSION, resumed))
        if resumed:
            self._acknowledge(acknowledged)
        self._resume()
        return Opened(resumed, PROTOCOL_VERSION)

    def _resume(self) -> None:
        self.is_open = self._established = True
        self._complained = False
        self._told = self._received
        self._untold_bytes = 0
        self._out.extend(frame for _, frame in self._unacknowledged)

    # --- Sending ---

    def data_to_send(self) -> bytes:
        """All bytes that are ready to be sent, to be passed on in full. Empty when there are none."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def next_piece(self) -> bytes:
        """The next piece to write, at most 32 KiB; empty when there is none. `piece_sent` says how much of it went."""
        return self._out[0] if self._out else b""

    def piece_sent(self, count: int) -> None:
        """So many bytes of `next_piece` were written."""
        piece = self._out.popleft()
        if count < len(piece):
            self._out.appendleft(piece[count:])

    def open_channel(self, payload: bytes) -> int:
        """Host: send a REQUEST (ASCII JSON) and return its channel. ValueError: too long, or too many open."""
        if len(payload) > MAX_REQUEST:
            raise ValueError(f"a request of {len(payload)} bytes; at most {MAX_REQUEST} are allowed")
        if len(self.channels.opened) >= MAX_CHANNELS:
            raise ValueError(f"{MAX_CHANNELS} requests are already under way")
        number = self.channels.last + 1
        rest = len(payload) - MAX_PAYLOAD
        at = 0
        while at < rest:
            self._send_sequenced(PART, number, 0, payload[at : at + MAX_PAYLOAD])
            at += MAX_PAYLOAD
        self.send(REQUEST, number, payload[at:])
        return number

    def send(self, kind: int, number: int, payload: bytes = b"", stream: int = 0) -> None:
        """Send any sequenced frame but DATA and CREDIT. What the host says to a closed channel is dropped.

        ValueError when the channel's state does not allow it or the payload is too long.
        """
        if len(payload) > MAX_PAYLOAD:
            raise ValueError(f"a payload of {len(payload)} bytes; a frame takes {MAX_PAYLOAD}")
        if self.channels.ignored(self.role, kind, number):
            return
        channel = self.channels.move(self.role, kind, number)
        if kind == END:
            channel.ended_here.add(stream)
        self._send_sequenced(kind, number, stream, payload)

    def sendable(self, number: int) -> int:
        """How many bytes `send_data` would take now: none without credit, or with too much unacknowledged."""
        channel = self.channels.get(number)
        if channel is None or len(self._unacknowledged) >= LINK_WINDOW_FRAMES:
            return 0
        # Spelt out, because this is asked for every frame, and a guest without KVM pays for each call.
        room = LINK_WINDOW - self._unacknowledged_bytes
        if room > channel.may_send:
            room = channel.may_send
        if room > MAX_FRAME:
            room = MAX_FRAME
        return room - HEADER_SIZE if room > HEADER_SIZE else 0

    def send_data(self, number: int, stream: int, data: bytes) -> int:
        """Send the beginning of `data` as one DATA frame and return how many bytes went: 0 without credit."""
        count = self.sendable(number)
        if not count or not data:
            return 0
        if count < len(data):
            data = data[:count]
        # Most output is ASCII, which holds no MAGIC: to tell that costs a guest a fifth of the search.
        if not data.isascii():
            magic = data.find(MAGIC)
            if magic >= 0:
                # The other half goes into the next frame: a header between them keeps MAGIC out of the stream.
                data = data[: magic + len(MAGIC) // 2]
        channel = self.channels.move(self.role, DATA, number)
        if stream in channel.ended_here:
            raise ValueError(f"stream {stream} of channel {number} has ended")
        channel.may_send -= len(data) + HEADER_SIZE
        self._send_sequenced(DATA, number, stream, data)
        return len(data)

    def take(self, number: int, count: int) -> None:
        """The consumer has taken a DATA frame of `count` bytes: return its credit, in batches."""
        channel = self.channels.get(number)
        if channel is None:
            return
        channel.owed += count + HEADER_SIZE
        if channel.owed >= CREDIT_EVERY_BYTES:
            self.channels.move(self.role, CREDIT, number)
            channel.may_receive += channel.owed
            self._send_sequenced(CREDIT, number, 0, CREDIT_PAYLOAD.pack(channel.owed))
            channel.owed = 0

    def ping(self, token: int) -> None:
        """Host: ask for a sign of life; the PONG repeats the token (below 2**56). Does nothing while not connected."""
        if self.is_open:
            self._pings += 1
            self._send_unsequenced(PING, PING_PAYLOAD.pack(token))

    def _send_unsequenced(self, kind: int, payload: bytes = b"") -> None:
        self._out.append(self._frame(kind, 0, 0, 0, payload))

    def _send_sequenced(self, kind: int, number: int, stream: int, payload: bytes) -> None:
        if len(self._unacknowledged) >= MAX_UNACKNOWLEDGED_FRAMES:
            raise ProtocolViolation(f"the peer has left {len(self._unacknowledged)} frames unacknowledged")
        self._sent += 1
        frame = self._frame(kind, number, self._sent, stream, payload)
        self._unacknowledged.append((self._sent, frame))
        self._unacknowledged_bytes += len(frame)
        if self.is_open:
            self._out.append(frame)

    def _frame(self, kind: int, number: int, sequence: int, stream: int, payload: bytes) -> bytes:
        self._told = self._received
        self._untold_bytes = 0
        return HEADER.pack(len(payload), number, sequence, self._received, stream, kind) + payload

    # --- Receiving ---

    def receive_data(self, data: bytes | bytearray | memoryview) -> list[Frame | Opened]:
        """Take bytes from the peer, cut anywhere, and return what they say. Raises ProtocolViolation.

        What came with a violation and stands before it is lost; what stands after it is looked at in the next call.
        """
        try:
            return self._receive(data)
        except ProtocolViolation:
            del self._in[: self._parsed]
            self._scanned = 0
            raise

    def _receive(self, data: bytes | bytearray | memoryview) -> list[Frame | Opened]:
        buffer = self._in
        buffer += data
        events: list[Frame | Opened] = []
        start = 0
        while True:
            magic = buffer.find(MAGIC, max(start, self._scanned))
            end = magic if magic >= 0 else len(buffer)
            if self.is_open:
                start = self._receive_frames(start, end, events)
            if magic < 0:
                break
            # Wherever MAGIC stands a connection begins; what is left before it is the torn end of an earlier one.
            start = magic
            if len(buffer) - magic < PREAMBLE.size:
                break
            opened = self._receive_preamble(bytes(buffer[magic : magic + PREAMBLE.size]))
            if opened is not None:
                events.append(opened)
            else:
                self._count_stray()
            start += PREAMBLE.size if self.is_open else len(MAGIC)
        if magic < 0 and not self.is_open:
            start = max(start, len(buffer) - len(MAGIC) + 1)
            if start and self.role == AGENT and not self._complained:
                self._complain("this is no preamble, and there is no connection")
        del buffer[:start]
        self._scanned = 0 if magic >= 0 else max(0, len(buffer) - len(MAGIC) + 1)
        self._tell()
        return events

    def _tell(self) -> None:
        """Acknowledge by a frame of its own when much has come and nothing went that could carry it."""
        due = self._untold_bytes >= ACK_EVERY_BYTES or self._received - self._told >= ACK_EVERY_FRAMES
        if self.is_open and due:
            self._send_unsequenced(ACK)

    def _receive_frames(self, start: int, end: int, events: list[Frame | Opened]) -> int:
        """Parse the complete frames in _in[start:end] and return where the first incomplete one begins."""
        with memoryview(self._in) as view:
            while True:
                self._parsed = start
                if end - start < HEADER_SIZE:
                    break
                length, number, sequence, acknowledged, stream, kind = HEADER.unpack_from(view, start)
                if length > MAX_PAYLOAD:
                    raise ProtocolViolation(f"a frame of {length} bytes; at most {MAX_PAYLOAD} are allowed")
                following = start + HEADER_SIZE + length
                if following > end:
                    break
                payload = bytes(view[start + HEADER_SIZE : following])
                start = following
                advances = acknowledged != self._acknowledged and self._acknowledge(acknowledged)
                if kind in UNSEQUENCED:
                    if sequence:
                        raise ProtocolViolation(f"{KIND_NAMES[kind]} with a sequence number")
                    frame = self._receive_unsequenced(kind, payload, advances)
                else:
                    if sequence != self._received + 1:
                        raise ProtocolViolation(f"frame {sequence} where {self._received + 1} was expected")
                    self._received = sequence
                    self._untold_bytes += HEADER_SIZE + length
                    frame = self._receive_sequenced(kind, number, stream, payload)
                if frame is not None:
                    events.append(frame)
        return start

    def _acknowledge(self, sequence: int) -> bool:
        """The peer has our frames up to this one; true when that is news."""
        if sequence > self._sent:
            raise ProtocolViolation(f"frame {sequence} acknowledged, but only {self._sent} were sent")
        if sequence <= self._acknowledged:
            return False
        self._acknowledged = sequence
        kept = self._unacknowledged
        while kept and kept[0][0] <= sequence:
            self._unacknowledged_bytes -= len(kept.popleft()[1])
        return True

    def _receive_unsequenced(self, kind: int, payload: bytes, advances: bool) -> Frame | None:
        """These cost no credit, so each kind has a rule that keeps a hostile peer from sending it without end."""
        if self.peer not in UNSEQUENCED_SENDERS[kind]:
            raise ProtocolViolation(f"{KIND_NAMES[kind]} from the wrong side")
        if kind == ACK:
            if payload or not advances:
                raise ProtocolViolation("an ACK that acknowledges nothing new")
            return None
        if kind == PING:
            if len(payload) != PING_PAYLOAD.size:
                raise ProtocolViolation(f"a PING of {len(payload)} bytes")
            self._send_unsequenced(PONG, payload)
            return None
        if kind == PONG:
            if not self._pings or len(payload) != PING_PAYLOAD.size:
                raise ProtocolViolation("a PONG without its PING")
            self._pings -= 1
        return Frame(kind, 0, 0, payload)

    def _receive_sequenced(self, kind: int, number: int, stream: int, payload: bytes) -> Frame | None:
        if self._parts and (kind not in (PART, REQUEST) or number != self._parts_channel):
            raise ProtocolViolation("a request was cut off after its first part")
        if kind == PART:
            self._receive_part(number, payload)
            return None
        if self.channels.ignored(self.peer, kind, number):
            return None
        channel = self.channels.move(self.peer, kind, number)
        if kind == DATA:
            channel.receive_data(self.peer, stream, len(payload))
        elif kind == END:
            channel.receive_end(self.peer, stream)
        elif kind == CREDIT:
            channel.receive_credit(payload)
        elif kind == REQUEST:
            payload = bytes(self._parts) + payload
            self._parts.clear()
        return Frame(kind, number, stream, payload)

    def _receive_part(self, number: int, payload: bytes) -> None:
        if self.peer != HOST or number != self.channels.last + 1:
            raise ProtocolViolation(f"PART for channel {number}")
        if not payload or len(self._parts) + len(payload) > MAX_REQUEST:
            raise ProtocolViolation(f"a request of more than {MAX_REQUEST} bytes, or an empty part of one")
        self._parts += payload
        self._parts_channel = number
