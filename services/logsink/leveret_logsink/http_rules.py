"""Ranges and conditions of HTTP requests (RFC 9110 sections 13 and 14), as far as logsink serves them. Pure."""

import re
from collections.abc import Mapping

from leveret_proto.sizes import parse_size

_ONE = re.compile(r"bytes=[ \t]*(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))[ \t]*", re.ASCII | re.IGNORECASE)


class Unsatisfiable(ValueError):
    """The range lies outside of what there is: status 416."""


def wanted(header: str | None, size: int) -> tuple[int, int] | None:
    """Give the half-open range (start, end) that `header` asks for out of `size` bytes.

    None where the whole is to be sent: there is no header, it is not valid, or asks for several ranges (a server may
    ignore it, RFC 9110 section 14.2).

    Raises:
        Unsatisfiable: it starts at the end or beyond, or asks for the last 0 bytes.
    """
    match = _ONE.fullmatch(header or "")
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        if int(suffix) == 0 or size == 0:
            raise Unsatisfiable
        return max(0, size - int(suffix)), size
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise Unsatisfiable
    return start, min(int(last) + 1, size) if last else size


def unchanged(if_none_match: str | None, etag: str) -> bool:
    """Whether the reader has what `etag` names already (RFC 9110 section 13.1.2: tags are compared weakly)."""
    tags = _tags(if_none_match)
    return "*" in tags or etag in [tag.removeprefix("W/") for tag in tags]


def refused(if_match: str | None, etag: str) -> bool:
    """Whether the reader wants nothing but another state than `etag` names (section 13.1.1: compared strongly)."""
    tags = _tags(if_match)
    return if_match is not None and "*" not in tags and etag not in tags


def last(query: Mapping[str, str]) -> int | None:
    """Give how many bytes of the end are asked for, as `?last=128KiB` does. Raises ValueError."""
    text = query.get("last")
    try:
        return None if text is None else parse_size(text)
    except ValueError as error:
        raise ValueError(f"last: {error}") from None


def live(method: str, accept: str | None, query: Mapping[str, str]) -> bool:
    """Whether an event stream is asked for: by `Accept: text/event-stream`, as browsers do, or `?follow`."""
    accepted = [kind.partition(";")[0].strip().lower() for kind in (accept or "").split(",")]
    return method == "GET" and ("text/event-stream" in accepted or "follow" in query)


def _tags(header: str | None) -> list[str]:
    return [tag.strip() for tag in (header or "").split(",")]
