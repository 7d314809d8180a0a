"""Message properties that are not what AMQP clients expect, read without losing the connection over them.

To the broker short strings are bytes, and header tables pass through it unread. The client library (pamqp) insists on
UTF-8, known types and sane times, and gives up the whole connection otherwise: one hostile message would take down
every consumer of its queue, one after the other, until the delivery limit. So what can't be read is replaced, and the
service that takes the message refuses it like any other bad input.
"""

import struct
from collections.abc import Callable
from typing import Any

from pamqp import decode

#: Stands for each byte of a short string that is not UTF-8: ASCII's SUBSTITUTE, which no valid name contains. One byte
#: for one byte, so that the string still fits where it may be repeated.
SUBSTITUTE = "\x1a"
#: The one header of a message whose header table can't be read.
UNREADABLE_HEADERS = "x-leveret-unreadable"

Decoder = Callable[[bytes], tuple[int, Any]]


def install() -> None:
    """Make pamqp read frames this way, in the whole process. Calling it again changes nothing."""
    for name, lenient in (("shortstr", _short_string), ("table", _table), ("timestamp", _timestamp)):
        decode.METHODS[name] = lenient


def _short_string(value: bytes) -> tuple[int, str]:
    length = value[0]
    text = value[1 : length + 1]
    try:
        return length + 1, text.decode()
    except UnicodeDecodeError:
        return length + 1, text.decode("ascii", "replace").replace("\N{REPLACEMENT CHARACTER}", SUBSTITUTE)


def _table(value: bytes) -> tuple[int, Any]:
    try:
        return decode.field_table(value)
    except Exception:
        # whatever is wrong with it, its length stands before it
        (length,) = struct.unpack(">I", value[:4])
        return 4 + length, {UNREADABLE_HEADERS: True}


def _timestamp(value: bytes) -> tuple[int, Any]:
    try:
        return decode.timestamp(value)
    except (ValueError, OverflowError, OSError):
        return 8, None
