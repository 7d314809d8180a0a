"""What a YAML scalar means: the resolution of YAML 1.1 as builds.sr.ht's parser (Go's yaml.v2) does it.

It differs from PyYAML's: `y`, `n` are booleans, `1:30` and dates are text, `0o17` is a number. Integers are exact here,
of any size, where the original turns large ones into floats.
"""

import base64
import binascii
import math
import re

#: What a scalar resolves to where its type matters: in `environment`, `shell` and under `leveret`.
Value = None | bool | int | float | str

_NULL = frozenset(["", "~", "null", "Null", "NULL"])
_TRUE = frozenset(["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"])
_FALSE = frozenset(["n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"])
_INT = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
#: Python refuses to print longer integers (`sys.int_info.default_max_str_digits` is 4300 digits); they stay text.
_MAX_INT_TEXT = 4000
_MAX_INT_BITS = 13_000

_PREFIX = "tag:yaml.org,2002:"
_SCALAR_TAGS = frozenset(_PREFIX + name for name in ("null", "bool", "int", "float", "str", "binary", "timestamp"))
_COLLECTION_TAGS = frozenset(_PREFIX + name for name in ("seq", "map"))


class TagError(ValueError):
    """An explicit tag that its scalar does not fit, as `!!int foo`."""


def is_known_tag(tag: str) -> bool:
    """Tell whether a tag means anything to the reader; others are ignored, with a warning."""
    return tag in _SCALAR_TAGS or tag in _COLLECTION_TAGS or tag == "!"


def resolve(text: str, tag: str | None, plain: bool) -> Value:
    """Give the value of a scalar.

    Args:
        text: its text, quotes and escapes undone.
        tag: its explicit tag in full, or None.
        plain: whether it stands without quotes and is no block scalar.

    Raises:
        TagError: if the tag is one of YAML's own and the text does not fit it.
    """
    if tag is None:
        return _resolve_plain(text) if plain else text
    if tag not in _SCALAR_TAGS:
        return text
    kind = tag.removeprefix(_PREFIX)
    if kind in ("str", "timestamp"):
        return text
    if kind == "binary":
        return _decode(text)
    value = _resolve_plain(text)
    fits = {
        "null": value is None,
        "bool": isinstance(value, bool),
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": isinstance(value, int | float) and not isinstance(value, bool),
    }
    if not fits[kind]:
        raise TagError(f"is tagged !!{kind}, and is none")
    return float(value) if kind == "float" and isinstance(value, int) and abs(value) < 2**1023 else value


def _decode(text: str) -> str:
    try:
        return base64.b64decode("".join(text.split()), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise TagError("is tagged !!binary, and is no base64 of a text") from error


def _resolve_plain(text: str) -> Value:
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if text[0] not in "+-.0123456789":
        return text
    digits = text.replace("_", "")
    if match := _INT.match(digits):
        return _integer(match, text)
    if _FLOAT.match(digits):
        value = float(digits)
        # JSON has no infinity, so what overflows (and `.inf`, `.nan`, which match nothing here) stays text.
        return value if math.isfinite(value) else text
    return text


def _integer(match: re.Match[str], text: str) -> int | str:
    sign, hexadecimal, binary, octal, decimal = match.groups()
    if len(text) > _MAX_INT_TEXT:
        return text
    if hexadecimal:
        value = int(hexadecimal, 16)
    elif binary:
        value = int(binary, 2)
    elif octal:
        value = int(octal, 8)
    else:
        value = int(decimal)
    if value.bit_length() > _MAX_INT_BITS:
        return text
    return -value if sign == "-" else value
