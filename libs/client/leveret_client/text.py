"""Bytes from guests on their way to a terminal: text, with colours, and nothing else that a terminal would obey."""

import codecs
import re

#: Escape sequences (ECMA-48: CSI, OSC and other strings, two-character ones), complete.
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-OQ-WYZ\\`-~])")
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?|[ -/]*)?\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_LONGEST_ESCAPE = 4096
RESET = "\x1b[0m"


class TerminalText:
    """Turns the pieces of one log into text that is safe on a terminal, whatever the pieces are cut in."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def feed(self, data: bytes, *, last: bool = False) -> str:
        """Give the text of `data`. An escape sequence or character that is cut waits for the next piece."""
        text = self._held + self._decoder.decode(data, last)
        self._held = ""
        unfinished = _UNFINISHED.search(text)
        if unfinished is not None and not last and len(unfinished[0]) <= _LONGEST_ESCAPE:
            self._held = unfinished[0]
            text = text[: unfinished.start()]
        return safe(text)


def safe(text: str) -> str:
    """Give `text` with its colours, but without any other escape sequence or control character."""
    parts: list[str] = []
    end = 0
    for escape in _ESCAPE.finditer(text):
        parts.append(_CONTROL.sub("", text[end : escape.start()]))
        if _COLOUR.fullmatch(escape[0]):
            parts.append(escape[0])
        end = escape.end()
    parts.append(_CONTROL.sub("", text[end:]))
    return "".join(parts)


def one_line(text: str) -> str:
    """Give `text` as one line without control characters: for names, notes and messages."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
