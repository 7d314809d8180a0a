"""What the agent needs of the standard library, without the weight of its wrappers.

`signal`, `collections` and `json` load `enum` and `re`, which costs a guest without KVM more than all its other imports
together. What they wrap is used here instead; a Python that is made otherwise gets the wrappers.

A part of the agent (see `agent.py`): Python 3.7, standard library alone.
"""

from __future__ import annotations

TYPE_CHECKING = False  # the typing module is not worth its import
if TYPE_CHECKING:
    import signal
    from collections import deque
    from json.encoder import encode_basestring_ascii as quoted
    from typing import Any

    def scan(text: str, at: int) -> tuple[object, int]: ...
else:
    try:
        import _signal as signal
        from _collections import deque
        from _json import encode_basestring_ascii as quoted
        from _json import make_scanner
    except ImportError:
        import signal
        from collections import deque
        from json import JSONDecoder
        from json.encoder import encode_basestring_ascii as quoted

        scan = JSONDecoder().scan_once
    else:

        class Reading:
            """How the scanner is to read: as `json` does."""

            strict = True
            object_hook = None
            object_pairs_hook = None
            parse_float = float
            parse_int = int
            parse_constant = float

        scan = make_scanner(Reading)

__all__ = ["deque", "dumps", "loads", "signal"]


def loads(payload: bytes) -> Any:
    """The JSON value in UTF-8. ValueError (RecursionError for deep nesting) if that is not what the bytes are."""
    text = payload.decode().strip()
    try:
        value, end = scan(text, 0)
    except (StopIteration, SystemError):  # the latter where the scanner misses json.decoder, whose error it would raise
        raise ValueError("not JSON") from None
    if end != len(text):
        raise ValueError("more than one JSON value")
    return value


def dumps(fields: dict[str, object]) -> bytes:
    """A JSON object in ASCII, of texts, numbers, booleans and None."""
    return ("{" + ",".join([quoted(name) + ":" + written(value) for name, value in fields.items()]) + "}").encode()


def written(value: object) -> str:
    if isinstance(value, str):
        return quoted(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return repr(value)
    raise TypeError(f"no JSON for {type(value).__name__}")
