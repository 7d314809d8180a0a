"""How a secret may stand in a log: as it is, its lines, what it assigns, and each of these encoded. Pure."""

import base64
import html
import json
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

#: Shorter values are not masked: they would shred the log.
SHORTEST = 4
#: Nor are shorter lines of a longer value, or those of fewer different bytes, as a ruler of dashes.
SHORTEST_LINE = 8
DIFFERENT = 4
#: Of a longer value every byte is still masked, but not each encoding of its parts: looking for all costs too much.
LONG = 4096
#: Columns at which base64(1) and MIME, and OpenSSL, break lines.
WRAPPED = (76, 64)

_ARMOUR = re.compile(rb"-----(BEGIN|END) [^\r\n]*-----")
_ASSIGNMENT = re.compile(rb"(?:export\s+)?[A-Za-z_][A-Za-z0-9_]*=(?P<quoted>['\"]?)(?P<value>.+)(?P=quoted)")
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
#: What bash writes between `$'` and `'` in the trace of `set -x`.
_ANSI_C = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\x1b": "\\E"}


def forms(value: bytes) -> Iterator[bytes]:
    """Give everything to look for, with repeats. What is shorter than SHORTEST is nothing to look for.

    White space around a value does not count, nor do the `-----BEGIN …-----` and `-----END …-----` around a key: they
    are no secret.
    """
    core = _core(value)
    if len(core) < SHORTEST:
        return
    yield from _wrapped(value)
    if len(core) > LONG:
        yield from _plainly(core)
        yield from _base64(core, skipped=0)
        yield from _parts(core)
        return
    for part in (core, *_parts(core)):
        yield from _plainly(part)
        yield from _escaped(part)
        yield part.hex().encode()
        yield part.hex().upper().encode()
        for skipped in range(3):
            yield from _base64(part, skipped)


def _core(value: bytes) -> bytes:
    lines = value.strip().splitlines()
    if len(lines) > 2 and _ARMOUR.fullmatch(lines[0]) and _ARMOUR.fullmatch(lines[-1]):
        return value.strip()[len(lines[0]) : -len(lines[-1])].strip()
    return value.strip()


def _parts(core: bytes) -> Iterator[bytes]:
    """Give its lines, where it has several, and what a line of a shell assigns: files of secrets are often read so."""
    lines = [line.strip() for line in core.splitlines()]
    for line in lines:
        assigned = _ASSIGNMENT.fullmatch(line)
        for part in (line if len(lines) > 1 else b"", assigned["value"] if assigned else b""):
            if len(part) >= SHORTEST_LINE and len(set(part)) >= DIFFERENT and not _ARMOUR.fullmatch(part):
                yield part


def _plainly(part: bytes) -> Iterator[bytes]:
    yield part
    yield b"\r\n".join(part.splitlines())  # as a terminal shows it


def _base64(part: bytes, skipped: int) -> Iterator[bytes]:
    """Give what is the same in the base64 of every text that holds `part` after `skipped` bytes (modulo 3)."""
    whole = (skipped + len(part)) * 8 // 6
    encoded = base64.b64encode(bytes(skipped) + part)[-(-skipped * 8 // 6) : whole]
    yield encoded
    yield encoded.translate(_URL_SAFE)


def _wrapped(value: bytes) -> Iterator[bytes]:
    """Give the lines of the base64 of the value itself."""
    encoded = base64.b64encode(value)
    for columns in WRAPPED:
        for start in range(0, len(encoded) if len(encoded) > columns else 0, columns):
            if len(line := encoded[start : start + columns].rstrip(b"=")) >= SHORTEST_LINE:
                yield line


def _escaped(part: bytes) -> Iterator[bytes]:
    """Give what the escapes of URLs, JSON, HTML and the shell make of it; the same as itself where it needs none."""
    for safe in ("", "/", "!'()*", "/!'()*"):
        for quoted in (quote(part, safe), quote_plus(part, safe)):
            yield quoted.encode()
            yield re.sub("%..", lambda found: found[0].lower(), quoted).encode()
    yield part.replace(b"'", b"'\\''")
    try:
        text = part.decode()
    except UnicodeDecodeError:
        return
    for ascii_only in (True, False):
        escaped = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield escaped.encode(errors="surrogatepass")
        yield escaped.replace("/", "\\/").encode(errors="surrogatepass")
        yield re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", escaped).encode(errors="surrogatepass")
    yield "".join(_ANSI_C.get(sign, sign) for sign in text).encode()
    yield html.escape(text, quote=False).encode()
    yield html.escape(text).encode()
