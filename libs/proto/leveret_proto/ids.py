"""Identifiers: UUIDv7 (RFC 9562 section 5.7) for messages, so that they sort by the time they were made."""

import os
import time
from uuid import UUID


def uuid7(milliseconds: int | None = None) -> UUID:
    """Make a UUIDv7 for now, or for `milliseconds` since the Unix epoch."""
    stamp = time.time_ns() // 1_000_000 if milliseconds is None else milliseconds
    tail = int.from_bytes(os.urandom(10), "big")
    value = (stamp & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | (tail >> 64 & 0xFFF) << 64
    return UUID(int=value | 0b10 << 62 | tail & 0x3FFF_FFFF_FFFF_FFFF)


def message_id() -> str:
    """Make a `message_id` for an AMQP message."""
    return str(uuid7())
