"""Numbers of bytes as people write them: `128KiB`. Pure."""

import re

_SIZE = re.compile(r"([0-9]{1,12}) ?(|B|KiB|MiB|GiB)", re.ASCII)
_UNITS = {"": 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def parse_size(text: str) -> int:
    """Read a number of bytes: `4096`, `128KiB`, `1 MiB`. Raises ValueError, with a text for people."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError("expected a number of bytes, as 4096, 128KiB or 1MiB")
    return int(match[1]) * _UNITS[match[2]]
