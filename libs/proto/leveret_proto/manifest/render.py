"""Shows diagnostics the way compilers do: place, message, the line itself, a caret, a hint."""

import unicodedata
from collections.abc import Callable, Iterable

from leveret_proto.manifest.diagnostics import Diagnostic
from leveret_proto.manifest.text import LINE_BREAK

#: How much of a source line is shown, in characters; a window around the column is cut from a longer one.
_WIDTH = 100
_TAB = 4
_RESET, _BOLD, _RED, _YELLOW, _BLUE, _CYAN = "\x1b[0m", "\x1b[1m", "\x1b[1;31m", "\x1b[1;33m", "\x1b[1;34m", "\x1b[36m"


def render(diagnostics: Iterable[Diagnostic], source: str | bytes, filename: str, color: bool = False) -> str:
    """Give the text to show for `diagnostics` of `source`, ended by a line break; empty if there are none.

    Control characters of the source never reach the terminal.
    """
    text = source if isinstance(source, str) else source.decode("utf-8", "replace")
    lines = LINE_BREAK.split(text.removeprefix("\ufeff"))
    paint = _paint if color else _plain
    return "".join(_one(found, lines, filename, paint) for found in diagnostics)


def _one(found: Diagnostic, lines: list[str], filename: str, paint: Callable[[str, str], str]) -> str:
    tone = _RED if found.severity == "fault" else _YELLOW
    path = f"{_visible(found.path)}: " if found.path else ""
    head = paint(_BOLD, f"{_visible(filename)}:{found.line}:{found.column}:")
    shown = [f"{head} {paint(tone, found.severity + ':')} {path}{_visible(found.message)}"]
    number = str(found.line)
    gutter = " " * len(number)
    if found.line <= len(lines):
        before, after = _window(lines[found.line - 1], found.column - 1)
        shown += [
            paint(_BLUE, f"{gutter} |"),
            f"{paint(_BLUE, number + ' |')} {before}{after}".rstrip(),
            f"{paint(_BLUE, gutter + ' |')} {' ' * _cells(before)}{paint(tone, '^')}",
        ]
    if found.hint:
        shown.append(f"{paint(_BLUE, gutter + ' =')} {paint(_CYAN, 'hint:')} {_visible(found.hint)}")
    return "\n".join(shown) + "\n"


def _window(line: str, column: int) -> tuple[str, str]:
    """Give what is shown of `line` left of `column`, and from it on."""
    start = max(0, column - _WIDTH * 2 // 3) if len(line) > _WIDTH else 0
    end = start + _WIDTH
    before = ("…" if start else "") + line[start:column]
    after = line[column:end] + ("…" if len(line) > end else "")
    return _visible(before), _visible(after)


def _visible(text: str) -> str:
    """Expand tabs, and replace what would move the cursor or speak to the terminal."""
    text = text.replace("\t", " " * _TAB)
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _cells(text: str) -> int:
    """Give how many columns of a terminal `text` takes."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _paint(tone: str, text: str) -> str:
    return f"{tone}{text}{_RESET}"


def _plain(_: str, text: str) -> str:
    return text
