"""Syntax faults: what libyaml and PyYAML complain about, in this project's words, in the place where the mistake is.

Both parsers stop at the first fault. To tell an author of all of them, the smallest part of the manifest that can hold
the fault is blanked (an entry of a list or mapping, else a whole key), and the rest is read again.
"""

import re
from dataclasses import dataclass, field

import yaml

from leveret_proto.manifest.guess import closest
from leveret_proto.manifest.model import Manifest
from leveret_proto.manifest.text import LINE_BREAK, START, Position

_TOP_KEY = re.compile(r"""(["']?)([A-Za-z_.<][^:#"'\n]*?)\1[ \t]*:(?=\s|\Z)""")
_ENTRY = re.compile(r"""-(?=\s|\Z)|["']?[^\s#"'\[\]{},][^#\n]*?["']?[ \t]*:(?=\s|\Z)""")
#: A line at the left edge, but for comments, list items and closing brackets: where a key begins, or should.
_HEAD = re.compile(r"---|[^\s#\-\]}]")
_WORD = re.compile(r"[A-Za-z_]+")


@dataclass(frozen=True)
class SyntaxFault:
    place: Position
    message: str
    hint: str
    #: The line fits nowhere, so it and what is indented below it may be at fault alone.
    misplaced: bool = False


#: (in the parsers' problem, message, hint, whether the mistake is where the context began). The first match counts.
_WORDINGS: tuple[tuple[str, str, str, bool], ...] = (
    (
        r"mapping values are not allowed",
        "a ': ' may not stand here",
        "check the indentation of this line and the line above; quote a text that holds ': '",
        False,
    ),
    (
        r"could not find expected ':'",
        "this is no 'key: value'",
        "add the colon and a blank after it, or indent the line if it belongs to the text above",
        True,
    ),
    (r"tab character", "a tab may not indent a line", "indent with blanks", False),
    (r"cannot start any token", "{character} can't begin a value", "put the text in quotes", False),
    (r"unexpected (?:end of stream|document (?:indicator|separator))", "this quote is never closed", "", True),
    (r"(?:',' or '\]')", "{bracket}", "", False),
    (r"(?:',' or '\}')", "{bracket}", "", False),
    (
        r"unknown escape character|hexdecimal|Unicode character code",
        "there is no such escape in double quotes",
        r"write \\ for a backslash, or use single quotes",
        True,
    ),
    (
        r"comment or line break|chomping or indentation|indentation indicator",
        "only '+', '-', a digit or a comment may follow '|' or '>' on its line",
        "begin the text on the next line, indented",
        False,
    ),
    (
        r"expected key|<block end>|'-' indicator",
        "this does not fit what is above it",
        "entries of one list or mapping begin in one column; a value that begins with a quote ends with it",
        False,
    ),
    (r"undefined tag handle", "this tag's '!' prefix is not declared", "quote the text if no tag is meant", True),
    (r"mapping keys are not allowed", "a '? ' may not stand here", "quote a text that begins with '?'", False),
    (r"sequence entries are not allowed", "a '- ' may not stand here", "begin the list on a line of its own", False),
    (r"node content", "a value is expected here", "", False),
    (r"document start", "text follows the end of the document", "", False),
    (r"incompatible YAML document|directive", "this '%' directive is not understood", "leave it out", False),
)
_CONTEXTS: tuple[tuple[str, str, str], ...] = (
    (r"an alias", "a name must follow '*'", "quote a text that begins with '*'"),
    (r"an anchor", "a name must follow '&'", "quote a text that begins with '&'"),
    (r"a (?:%YAML |%TAG )?directive", "this '%' directive is not understood", "leave it out"),
    (r"a tag", "this tag is malformed", "quote a text that begins with '!'"),
)


def explain(error: yaml.YAMLError, text: str) -> SyntaxFault:
    """Put a parser's complaint into words. Both of PyYAML's parsers get the same words."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return SyntaxFault(START, "this is no YAML", "")
    problem, context = error.problem or "", error.context or ""
    at = _position(error.problem_mark) or _position(error.context_mark) or START
    begin = _position(error.context_mark) or at
    for pattern, message, hint in _CONTEXTS:
        if context.startswith(("while scanning", "while parsing")) and re.search(f"{pattern}$", context):
            return SyntaxFault(begin, message, hint)
    for pattern, message, hint, at_context in _WORDINGS:
        if re.search(pattern, problem):
            return _place(SyntaxFault(begin if at_context else at, message, hint), begin, text)
    return SyntaxFault(at, f"this is no YAML: {problem}", "")


def _position(mark: yaml.Mark | None) -> Position | None:
    return Position(mark.line + 1, mark.column + 1) if mark is not None else None


def _place(fault: SyntaxFault, begin: Position, text: str) -> SyntaxFault:
    """Move a fault from where the parser noticed it to where it was made, and fill in its characters."""
    lines = LINE_BREAK.split(text)
    line = lines[fault.place.line - 1] if fault.place.line <= len(lines) else ""
    character = line[fault.place.column - 1 : fault.place.column]
    if fault.message == "{bracket}":
        opening = lines[begin.line - 1][begin.column - 1 : begin.column]
        if fault.place.line != begin.line:
            return SyntaxFault(begin, f"this '{opening}' is never closed", "")
        closing = "]" if opening == "[" else "}"
        return SyntaxFault(fault.place, f"a ',' or '{closing}' is expected here", "")
    if fault.message.startswith("{character}"):
        if character == "\t":
            return SyntaxFault(fault.place, "a tab may not indent a line", "indent with blanks")
        return SyntaxFault(fault.place, fault.message.format(character=f"'{character}'"), fault.hint)
    if fault.message.startswith("a ': '"):
        return _missing_colon_above(fault, lines) or fault
    if fault.message.startswith("this does not fit"):
        entry = _ENTRY.match(line, fault.place.column - 1)
        alone = not line[: fault.place.column - 1].strip()
        return SyntaxFault(fault.place, fault.message, fault.hint, misplaced=bool(entry) and alone)
    return fault


def _missing_colon_above(fault: SyntaxFault, lines: list[str]) -> SyntaxFault | None:
    """Blame the line above if it is the one that lacks a colon: `image debian` before `tasks:`."""
    line = lines[fault.place.line - 1]
    indent = _indent(line)
    for number in range(fault.place.line - 1, 0, -1):
        above = lines[number - 1]
        if not above.strip() or above.lstrip().startswith("#"):
            continue
        is_bare = _indent(above) <= indent and not _ENTRY.match(above.lstrip()) and ": " not in above
        if not is_bare:
            return None
        message, hint = next((message, hint) for pattern, message, hint, _ in _WORDINGS if "':'" in pattern)
        return SyntaxFault(Position(number, _indent(above) + 1), message, hint)
    return None


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _key_of(line: str) -> str:
    """Give the top-level key that `line` begins, or was meant to begin (`image debian`); "*" if there is none."""
    if match := _TOP_KEY.match(line):
        return match[2]
    word = _WORD.match(line)
    return next(iter(closest(word[0], Manifest.model_fields)), "*") if word else "*"


@dataclass
class Repair:
    """The text with the parts blanked that could not be read, line by line, and what they held.

    `damaged` names the top-level keys that lost something; "*" stands for unknown ones.
    """

    text: str
    damaged: set[str] = field(default_factory=set)
    _lines: list[str] = field(init=False)
    _seen: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        ends = [match.end() for match in LINE_BREAK.finditer(self.text)]
        self._lines = [self.text[a:b] for a, b in zip([0, *ends], [*ends, len(self.text)], strict=True)]

    def blank(self, fault: SyntaxFault) -> tuple[str, bool]:
        """Blank what `fault` spoils. Give the key it stands under, and whether it says something new.

        A second fault in the same entry is most likely an echo of the first; then more is blanked, and nothing said.
        """
        line = min(fault.place.line, len(self._lines)) - 1
        first, last, key = self._section(line)
        begin, end = self._entry(line, first, last)
        is_new = begin not in self._seen
        if is_new and fault.misplaced:
            end = self._subtree(line, end)
            self._seen.add(begin)
            begin = line
        elif not is_new:
            begin, end = first, last
        self._seen.add(begin)
        if not any(text.strip() for text in self._lines[begin:end]):
            begin, end, key = 0, len(self._lines), "*"
        for number in range(begin, end):
            text = self._lines[number]
            self._lines[number] = text[len(text.rstrip("\r\n\x85\u2028\u2029")) :]
        self.damaged.add(key)
        self.text = "".join(self._lines)
        return ("" if key == "*" else key), is_new

    def _section(self, line: int) -> tuple[int, int, str]:
        """Give first and last line (exclusive) of the top-level key around `line`, and its name or "*"."""
        first = line
        while first > 0 and not _HEAD.match(self._lines[first]):
            first -= 1
        last = first + 1
        while last < len(self._lines) and not _HEAD.match(self._lines[last]):
            last += 1
        return first, max(last, line + 1), _key_of(self._lines[first])

    def _entry(self, line: int, first: int, last: int) -> tuple[int, int]:
        """Give the lines of the list item or mapping entry around `line`; the whole section if there is none."""
        body = [n for n in range(first + 1, last) if self._lines[n].strip() and self._lines[n].lstrip()[0] != "#"]
        if not body or line <= first:
            return first, last
        indent = _indent(self._lines[body[0]])
        heads = [n for n in body if _indent(self._lines[n]) == indent and _ENTRY.match(self._lines[n].lstrip())]
        before = [n for n in heads if n <= line]
        if not before:
            return first, last
        return before[-1], next((n for n in heads if n > line), last)

    def _subtree(self, line: int, end: int) -> int:
        """Give the end of the lines that are indented deeper than `line`."""
        indent = _indent(self._lines[line])
        for number in range(line + 1, end):
            text = self._lines[number]
            if text.strip() and _indent(text) <= indent:
                return number
        return end
