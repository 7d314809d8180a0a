"""Mail addresses of e-mail triggers: plain, `Name <a@b>`, `<a@b>`, `~user/list@lists.example.org`, comma-separated.

A small subset of RFC 5322's address-list, read in linear time: the text comes from strangers.
"""

import re
from typing import NamedTuple

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]+"
_ADDRESS = re.compile(rf"({_ATOM}(?:\.{_ATOM})*)@({_ATOM}(?:\.{_ATOM})*|\[[0-9A-Fa-f:.]+\])\Z")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*+)"')
_MAX_ADDRESS = 320


class Address(NamedTuple):
    """A display name, which may be empty, and an address `local@domain`."""

    name: str
    address: str


def addresses(text: str) -> list[Address]:
    """Read a comma-separated list of addresses.

    Raises:
        ValueError: if a part is no address; its message quotes the part.
    """
    parts = [part.strip() for part in _split(text)]
    if not any(parts):
        raise ValueError("there is no address")
    return [_one(part) for part in parts if part]


def _split(text: str) -> list[str]:
    """Split at commas outside quotes."""
    parts, start, i = [], 0, 0
    while i < len(text):
        if text[i] == '"' and (quoted := _QUOTED.match(text, i)):
            i = quoted.end()
            continue
        if text[i] == ",":
            parts.append(text[start:i])
            start = i + 1
        i += 1
    return [*parts, text[start:]]


def _one(part: str) -> Address:
    name, bare = "", part
    if part.endswith(">") and "<" in part:
        name, _, bare = part[:-1].rpartition("<")
        name = name.strip()
        if quoted := _QUOTED.fullmatch(name):
            name = re.sub(r"\\(.)", r"\1", quoted[1])
    if len(bare) > _MAX_ADDRESS or not _ADDRESS.match(bare) or any(c in name for c in "<>\r\n\0"):
        raise ValueError(f"'{part[:60]}' is not a mail address")
    return Address(name, bare)
