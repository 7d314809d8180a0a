"""From bytes to text: size, encoding, characters. Nothing here knows YAML's grammar."""

import re
from typing import NamedTuple

from leveret_proto.manifest.diagnostics import Findings

#: What YAML 1.1 calls a line break (section 5.4).
LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
#: Characters no YAML text may hold (YAML 1.1 section 5.1); lone surrogates are among them.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_BOM = "\ufeff"


class Position(NamedTuple):
    """A place in the text; both count from 1, in characters."""

    line: int
    column: int


START = Position(1, 1)


class Unreadable(Exception):
    """The input is no YAML text that could be judged at all: too big, not text, too deep, a bomb."""

    def __init__(self, place: Position, message: str, hint: str) -> None:
        super().__init__(message)
        self.place = place
        self.message = message
        self.hint = hint


def to_text(source: str | bytes, size: int) -> str:
    """Give the text of `source`: UTF-8, or UTF-16 with a byte order mark, as YAML allows.

    Raises:
        Unreadable: if it has more than `size` bytes, or is not text. The size is looked at first.
    """
    # A text has at least as many bytes as characters, so a huge one is refused before it is encoded.
    found = len(source)
    if isinstance(source, str) and found <= size:
        found = len(source.encode("utf-8", "surrogatepass"))
    if found > size:
        hint = "move long scripts into the repository, and call them from the task"
        raise Unreadable(START, f"the manifest has {found} bytes; the limit is {size}", hint)
    text = source if isinstance(source, str) else _decode(source)
    return text.removeprefix(_BOM)


def _decode(raw: bytes) -> str:
    encoding = "utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        good = raw[: error.start].decode(encoding, "ignore")
        message = f"byte {error.start} is not {encoding.upper()} text ({error.reason})"
        raise Unreadable(position(good, len(good)), message, "save the manifest as UTF-8") from error


def without_unprintable(text: str, found: Findings) -> str:
    """Report each run of characters that YAML forbids, and give the text with blanks in their place."""
    for match in re.finditer(f"{_UNPRINTABLE.pattern}+", text):
        character = f"U+{ord(match[0][0]):04X}"
        found.fault(position(text, match.start()), "", f"the character {character} may not stand in YAML", "remove it")
        if len(found.items) > 20:
            break
    return _UNPRINTABLE.sub(" ", text)


def position(text: str, offset: int) -> Position:
    """Give line and column of an offset in `text`."""
    line, start = 1, 0
    for match in LINE_BREAK.finditer(text, 0, offset):
        line, start = line + 1, match.end()
    return Position(line, offset - start + 1)
