"""Measures how deep a YAML text nests, before a YAML parser sees it.

PyYAML's C loader recurses once a level and crashes the process at some 100,000. This scan walks the text once, keeps
no more than a stack of the permitted depth, and knows just enough YAML 1.1 for that: indentation, `-`, `?` and `:`
indicators, flow brackets, quotes, comments, block scalars. A text that is no YAML may be measured wrongly; then the
depth of the parser's events, which do not recurse, is the second guard (see `nodes`).
"""

import re

_INDICATOR = re.compile(r"[-?:](?=[ \t\n]|\Z)")
_PROPERTY = re.compile(r"[&!][^ \t\n,\[\]{}]*[ \t]*")
_BLOCK_HEADER = re.compile(r"[|>]([-+0-9]*)[ \t]*(?:#.*)?(?=\n|\Z)")
_KEY_COLON = re.compile(r"[ \t]*:(?=[ \t\n]|\Z)")
#: A plain scalar of a block: up to `: `, ` #` or the end of the line.
_PLAIN_END = re.compile(r":(?=[ \t\n]|\Z)|(?<=[ \t])#|\n|\Z")
_FLOW_BLANK = re.compile(r"(?:[ \t\n]|#(?<=[ \t\n]#)[^\n]*)+")
_FLOW_PLAIN = re.compile(r"(?:[^,\[\]{}:#\n]|:(?![ \t\n,\[\]{}]|\Z)|(?<![ \t\n])#)+")
_DOCUMENT = re.compile(r"(?:---|\.\.\.)(?=[ \t\n]|\Z)")
_BLANKS = re.compile(r"[ \t]*")
_SPACES = re.compile(r" *")
_DOUBLE_END = re.compile(r'"|\\')


def too_deep(text: str, limit: int) -> int | None:
    """Give the offset at which `text` nests deeper than `limit` levels, or None. Linear in time."""
    return _Scan(text, limit).run()


class _TooDeep(Exception):
    pass


class _Scan:
    """One walk over the text. `blocks` holds (column, is it a list) of each open block collection."""

    def __init__(self, text: str, limit: int) -> None:
        # one character for one, so that offsets stay what they are
        self.text = re.sub("[\r\x85\u2028\u2029]", "\n", text)
        self.limit = limit
        self.at = 0
        self.line_start = 0
        self.blocks: list[tuple[int, bool]] = []
        self.in_plain = False

    def run(self) -> int | None:
        try:
            while self.at < len(self.text):
                self._line()
        except _TooDeep:
            return self.at
        return None

    def _line(self) -> None:
        """Take one line, and whatever its last value spans beyond it."""
        self.line_start = self.at
        self._skip(_SPACES)
        column = self.at - self.line_start
        if column == 0 and (_DOCUMENT.match(self.text, self.at) or self._sees("%")):
            self.blocks.clear()
            self.in_plain = False
            if self._sees("---"):
                self.at += 3
                self._skip(_BLANKS)
            else:
                self._to_next_line()
                return
        first = self._skip(_BLANKS)
        if first == "\n" or not first:
            self.at += 1
        elif first == "#":
            self.in_plain = False
            self._to_next_line()
        elif self.in_plain and column > self._indent():
            self._to_next_line()
        else:
            while self.blocks and self.blocks[-1][0] > column:
                self.blocks.pop()
            self._content()

    def _content(self) -> None:
        """Take indicators, keys and the value at the end of the line."""
        self.in_plain = False
        start = self.at
        while self.at < len(self.text) and self.text[self.at] != "\n":
            if match := _INDICATOR.match(self.text, self.at):
                self._open_block(self.at - self.line_start, match[0] == "-")
                self.at = match.end()
            elif match := _PROPERTY.match(self.text, self.at):
                self.at = match.end()
                continue  # `&anchor key: value`: the key's mapping begins at the anchor
            elif self.text[self.at] in "|>" and (match := _BLOCK_HEADER.match(self.text, self.at)):
                self.at = match.end() + 1
                self._block_scalar(match[1])
                return
            elif self.text[self.at] == "#" and self.text[self.at - 1] in " \t":
                break
            elif not self._value(start):
                return
            self._skip(_BLANKS)
            start = self.at
        self._to_next_line()

    def _value(self, start: int) -> bool:
        """Take a scalar or flow collection; where it turns out a key, open its mapping. False: the line is done."""
        line_start = self.line_start
        character = self.text[self.at]
        if character in "[{":
            self._flow()
        elif character in "\"'":
            self._quoted()
        else:
            match = _PLAIN_END.search(self.text, self.at)
            assert match is not None  # \Z always matches
            self.at = match.start()
            if match[0] != ":":
                self.in_plain = match[0] == "\n"
                self._to_next_line()
                return False
        if match := _KEY_COLON.match(self.text, self.at):
            self._open_block(start - line_start, False)
            self.at = match.end()
        elif self.line_start != line_start:
            # a value over several lines, and then something that can't follow it: let the parser complain
            self._to_next_line()
            return False
        return True

    def _open_block(self, column: int, is_list: bool) -> None:
        if self.blocks:
            top, top_is_list = self.blocks[-1]
            if top == column and top_is_list and not is_list:
                self.blocks.pop()  # the end of a list that stood at its key's own column
                if self.blocks and self.blocks[-1] == (column, False):
                    return
            elif top > column or (top == column and top_is_list == is_list):
                return
        self.blocks.append((column, is_list))
        self._check(0)

    def _check(self, flow: int) -> None:
        if len(self.blocks) + flow > self.limit:
            raise _TooDeep

    def _flow(self) -> None:
        """Take a flow collection. `a: b` inside `[...]` is a mapping of its own, one level deeper."""
        opened: list[str] = []
        pairs = [0]
        while self.at < len(self.text):
            if match := _FLOW_BLANK.match(self.text, self.at):
                self.line_start = max(self.line_start, self.text.rfind("\n", match.start(), match.end()) + 1)
                self.at = match.end()
                continue
            character = self.text[self.at]
            if character in "[{":
                opened.append(character)
                pairs.append(0)
                self._check(len(opened) + sum(pairs))
            elif character in "]}":
                opened.pop()
                pairs.pop()
            elif character == ",":
                pairs[-1] = 0
            elif character == ":" and opened[-1] == "[":
                pairs[-1] = 1
                self._check(len(opened) + sum(pairs))
            elif character in "\"'":
                self._quoted()
                continue
            elif match := _FLOW_PLAIN.match(self.text, self.at):
                self.at = match.end()
                continue
            self.at += 1
            if not opened:
                return

    def _quoted(self) -> None:
        """Take a quoted scalar, over as many lines as it has. One without end takes the rest of the text."""
        begin, mark = self.at, self.text[self.at]
        self.at += 1
        while self.at < len(self.text):
            if mark == "'":
                end = self.text.find("'", self.at)
                doubled = end >= 0 and self.text.startswith("''", end)
            else:
                match = _DOUBLE_END.search(self.text, self.at)
                end = match.start() if match else -1
                doubled = match is not None and match[0] == "\\"
            if end < 0:
                self.at = len(self.text)
                return
            self.at = end + (2 if doubled else 1)
            if not doubled:
                break
        self.line_start = max(self.line_start, self.text.rfind("\n", begin, self.at) + 1)

    def _block_scalar(self, header: str) -> None:
        """Skip the lines of a block scalar; they may hold anything."""
        parent = max(self._indent(), 0)
        digits = header.strip("+-")
        needed = parent + int(digits[0]) if digits and digits[0] in "123456789" else 0
        while self.at < len(self.text):
            line_start = self.at
            first = self._skip(_SPACES)
            column = self.at - line_start
            if first and first != "\n":
                needed = needed or max(column, self._indent() + 1, 1)
                if column < needed:
                    self.at = line_start
                    return
            self._to_next_line()

    def _indent(self) -> int:
        return self.blocks[-1][0] if self.blocks else -1

    def _sees(self, what: str) -> bool:
        return self.text.startswith(what, self.at)

    def _skip(self, blanks: re.Pattern[str]) -> str:
        match = blanks.match(self.text, self.at)
        assert match is not None  # the patterns match the empty text
        self.at = match.end()
        return self.text[self.at : self.at + 1]

    def _to_next_line(self) -> None:
        end = self.text.find("\n", self.at)
        self.at = len(self.text) if end < 0 else end + 1
