"""Which of PyYAML's parsers turns text into events: libyaml's where PyYAML has it, PyYAML's own otherwise.

builds.sr.ht's API parses with Go's yaml.v2, a port of libyaml, so libyaml's reading is the one that counts.
"""

from typing import Any

import yaml


class PythonLoader(yaml.SafeLoader):
    """PyYAML's own parser, taking tabs between tokens and after plain text as libyaml does."""

    def scan_to_next_token(self) -> None:
        super().scan_to_next_token()
        while self.peek() == "\t" and (self.flow_level or not self.allow_simple_key):
            self.forward()
            super().scan_to_next_token()

    def scan_plain_spaces(self, indent: int, start_mark: Any) -> list[str]:
        line = self.line
        chunks: list[str] = super().scan_plain_spaces(indent, start_mark) or []
        while self.peek() == "\t":
            if self.line != line and self.column < indent:
                problem = "found a tab character that violates indentation"
                raise yaml.scanner.ScannerError("while scanning a plain scalar", start_mark, problem, self.get_mark())
            before = self.line
            self.forward()
            more: list[str] = super().scan_plain_spaces(indent, start_mark) or []
            chunks = more if self.line != before else [*chunks, "\t", *more]
        return chunks


Loader = PythonLoader | yaml.CSafeLoader
DEFAULT_LOADER: type[Loader] = getattr(yaml, "CSafeLoader", PythonLoader)
