"""Routing words: percent-escaped parts of a routing key.

RabbitMQ topic keys give meaning to `.`, `*` and `#`, so those (and white space, control and non-ASCII characters) are
escaped the way URLs are (RFC 3986 section 2.1). A word is bounded, so that every key stays under AMQP's 255 bytes.
"""

from urllib.parse import quote, unquote

#: Longest escaped word, in bytes: a task's name, as builds.sr.ht allows it.
MAX_WORD = 128
#: AMQP 0-9-1's short string limit, in bytes.
MAX_KEY = 255

_KEPT = "~/@:+,=!-_"


class WordError(ValueError):
    """A text that can't be a routing word: empty, or longer than `MAX_WORD` bytes once escaped."""


def escape(text: str, limit: int = MAX_WORD) -> str:
    """Give `text` as one routing word.

    Raises:
        WordError: if `text` is empty or longer than `limit` bytes once escaped.
    """
    # quote() never escapes a dot (it is "unreserved"), but to a topic exchange it is the separator
    word = quote(text, safe=_KEPT).replace(".", "%2E")
    if not word:
        raise WordError("a routing word can't be empty")
    if len(word) > limit:
        raise WordError(f"{text[:40]!r}… takes {len(word)} bytes in a routing key; the limit is {limit}")
    return word


def unescape(word: str) -> str:
    """Give the text that `escape` was given.

    Raises:
        WordError: if `word` is not what `escape` makes of any text (so that each text has one key and no more).
    """
    text = unquote(word, errors="strict") if "%" in word else word
    if escape(text) != word:
        raise WordError(f"{word[:40]!r} is not a routing word in its one escaped form")
    return text


def matches(pattern: str, key: str) -> bool:
    """Whether a topic exchange routes `key` to a queue bound with `pattern` (AMQP 0-9-1: `*` one word, `#` any)."""
    wanted, words = pattern.split("."), key.split(".")
    # the places in `wanted` where reading may stand after the words so far
    places = _past_hashes(wanted, {0})
    for word in words:
        passed = {at + 1 for at in places if at < len(wanted) and wanted[at] in ("*", word)}
        places = _past_hashes(wanted, passed | {at for at in places if at < len(wanted) and wanted[at] == "#"})
    return len(wanted) in places


def _past_hashes(wanted: list[str], places: set[int]) -> set[int]:
    """Add the places behind each `#`, which may stand for no word at all."""
    found = set(places)
    for at in sorted(places):
        while at < len(wanted) and wanted[at] == "#":
            at += 1
            found.add(at)
    return found


def join(*words: str) -> str:
    """Join already escaped words into a routing key of at most `MAX_KEY` bytes."""
    key = ".".join(words)
    if len(key) > MAX_KEY:
        raise WordError(f"routing key of {len(key)} bytes; the limit is {MAX_KEY}")
    return key
