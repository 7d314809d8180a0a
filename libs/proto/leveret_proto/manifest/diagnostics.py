"""What the reader has to say about a manifest: where, what, and what to do about it."""

import json
import re
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

Severity = Literal["fault", "warning"]

_BARE_KEY = re.compile(r"[A-Za-z_][\w-]*\Z", re.ASCII)
#: What a diagnostic quotes from a manifest is cut to this many characters.
MAX_QUOTE = 60


class Diagnostic(BaseModel):
    """One fault (the manifest is rejected) or warning (it is accepted all the same).

    `path` is the YAML path such as `tasks[2].build`, empty for the whole document. `line` and `column` count from 1, in
    characters. `hint` says what to do; it may be empty.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    severity: Severity
    path: str = ""
    line: int = Field(ge=1)
    column: int = Field(ge=1)
    message: str
    hint: str = ""

    def __str__(self) -> str:
        """Give one line for a log or a plain reply."""
        where = f"{self.path}: " if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.line}:{self.column}: {self.severity}: {where}{self.message}{hint}"


class Place(Protocol):
    """Anything with a position in the text: `line` and `column` count from 1."""

    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


class Findings:
    """Collects diagnostics up to a bound, so that a hostile manifest can't make the answer larger than itself."""

    def __init__(self, most: int) -> None:
        self.items: list[Diagnostic] = []
        self.faults = 0
        self._most = most
        self._unsaid = 0

    def fault(self, place: Place, path: str, message: str, hint: str = "") -> None:
        self._add("fault", place, path, message, hint)

    def warn(self, place: Place, path: str, message: str, hint: str = "") -> None:
        self._add("warning", place, path, message, hint)

    def report(self, found: Diagnostic) -> None:
        self.faults += found.severity == "fault"
        if len(self.items) >= self._most:
            self._unsaid += 1
            # A fault is worth more than a warning: the answer must hold one where the manifest is rejected.
            warning = self._last_warning() if found.severity == "fault" else None
            if warning is None:
                return
            del self.items[warning]
        self.items.append(found)

    def _add(self, severity: Severity, place: Place, path: str, message: str, hint: str) -> None:
        found = Diagnostic(
            severity=severity, path=path, line=place.line, column=place.column, message=message, hint=hint
        )
        self.report(found)

    def _last_warning(self) -> int | None:
        return next((i for i in reversed(range(len(self.items))) if self.items[i].severity == "warning"), None)

    def in_order(self) -> list[Diagnostic]:
        """Give what was found in the order of the text, closed by a note on what did not fit."""
        found = sorted(self.items, key=lambda d: (d.line, d.column, d.severity))
        if self._unsaid:
            last = found[-1]
            severity: Severity = "fault" if self.faults else "warning"
            note = f"{self._unsaid} more like these are not shown"
            found.append(Diagnostic(severity=severity, line=last.line, column=last.column, message=note))
        return found


def child(path: str, key: str | int) -> str:
    """Give the YAML path of `key` under `path`; keys that are no plain words stand in quotes."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    name = key if _BARE_KEY.match(key) else json.dumps(cut(key), ensure_ascii=False)
    return f"{path}.{name}" if path else name


def cut(text: str) -> str:
    """Shorten `text` for a message."""
    return text if len(text) <= MAX_QUOTE else text[: MAX_QUOTE - 1] + "…"


def quote(text: str) -> str:
    """Give `text`, shortened, in quotes and without control characters."""
    return "'" + "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in cut(text)) + "'"
