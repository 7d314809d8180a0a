"""Writes a manifest's JSON form as YAML that the reader takes for the same values, scripts as block scalars."""

import re
from typing import Any

import yaml

from leveret_proto.manifest.scalars import resolve

#: What a literal block scalar carries unchanged; PyYAML itself falls back to quotes for blanks at the ends of lines.
_BLOCK = re.compile(r"[!-~][\t\n -~]*\n[\t\n -~]*\Z")


class _Dumper(yaml.SafeDumper):
    """PyYAML's dumper, with quotes wherever the reader's own resolution would see something other than text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    if _BLOCK.match(text):
        style = "|"
    else:
        style = "" if resolve(text, None, plain=True) == text and text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style or None)


_Dumper.add_representer(str, _represent_text)


def dump(data: dict[str, Any]) -> str:
    """Give `data` (JSON types) as YAML, keys in their order."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**31)
    return text
