"""Secrets become `***` in what a guest prints, however that is cut into pieces. Pure.

Every byte of every place where a secret stands is masked, places that overlap as one. Bytes are held back only while
they may begin a secret. Time is linear in the bytes, whatever they are: one pass of an Aho-Corasick automaton.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import chain

from ahocorasick_rs import BytesAhoCorasick, Implementation

from leveret_worker.secret_forms import SHORTEST, forms

#: Longer forms are looked for in pieces of so many bytes at most, and at least half as many: this bounds what is held.
PIECE = 64
#: Held bytes that `pause` lets go are fewer than this.
LET_GO = 4
#: Bytes of patterns up to which a table of all transitions is made: twice as fast, and half a KiB a byte.
SMALL = 16 * 1024
#: A mask is three of the first of these that could not itself become a part of a secret.
SIGNS = b"*#~^|:;!?@,.=_+-"

Span = tuple[int, int]


class Mask:
    """The secrets of one attempt, ready to be looked for."""

    def __init__(self, values: Iterable[str | bytes]) -> None:
        """`values`: in any encoding that `secret_forms` knows they are masked; some are too short for it."""
        raw = {value.encode() if isinstance(value, str) else value for value in values}
        found = {piece for value in raw for form in forms(value) for piece in _pieces(form)}
        self._patterns = _needed(sorted(found))
        self._automaton = _automaton(self._patterns) if self._patterns else None
        self._heads = frozenset(pattern[:n] for pattern in self._patterns for n in range(1, SHORTEST + 1))
        self._longest = max(map(len, self._patterns), default=0)
        #: What is put in a secret's place.
        self.sign = _sign(self._patterns)

    def stream(self) -> "Masker":
        """Begin a log of its own."""
        return Masker(self)

    def text(self, text: str) -> str:
        """Mask a text that is there as a whole."""
        if self._automaton is None:
            return text
        masker = self.stream()
        return (masker.feed(text.encode(errors="replace")) + masker.end()).decode(errors="replace")

    @property
    def idle(self) -> bool:
        """Whether there is nothing to mask."""
        return self._automaton is None

    def spans(self, data: bytes) -> list[Span]:
        """Find what is to be masked in `data`: in order, neither overlapping nor touching each other."""
        return [] if self._automaton is None else _united(_matches(self._automaton, data))

    def unfinished(self, data: bytes) -> int:
        """Give the length of the longest end of `data` that begins a pattern and is not the whole of it."""
        for start in range(max(0, len(data) - self._longest + 1), len(data)):
            if data[start : start + SHORTEST] in self._heads:
                end = data[start:]
                following = bisect_right(self._patterns, end)
                if following < len(self._patterns) and self._patterns[following].startswith(end):
                    return len(end)
        return 0


class Masker:
    """One log's bytes on their way through a mask."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        #: The end of what came that may go on to a secret; the last `held` bytes of it were not given out yet.
        self._tail = b""
        #: Bytes that wait for what follows; fewer than PIECE.
        self.held = 0
        #: Whether the last byte that was given out, or masked, was masked.
        self._masked = False

    def feed(self, data: bytes) -> bytes:
        """Take `data`; give out what is decided by now. With nothing to mask this is `data` itself."""
        if self._mask.idle or not data:
            return data
        window = self._tail + data
        spans = self._mask.spans(window)
        unfinished = self._mask.unfinished(window)
        decided = len(self._tail) - self.held
        self._tail = window[len(window) - unfinished :]
        if not (spans or decided or unfinished):
            self.held, self._masked = 0, False
            return window
        return self._give_out(window, decided, len(window) - unfinished, spans)

    def _give_out(self, window: bytes, at: int, until: int, spans: Sequence[Span]) -> bytes:
        """Give `window` from `at` to `until`, and beyond where that is masked already; hold the rest."""
        out: list[bytes] = []
        for start, end in spans:
            if start > until:
                break
            if end <= at:
                continue
            self._pass(out, window[at:start])
            self._cover(out)
            at = end
        self._pass(out, window[at:until])
        self.held = len(window) - max(at, until)
        return b"".join(out)

    def _pass(self, out: list[bytes], data: bytes) -> None:
        if data:
            out.append(data)
            self._masked = False

    def _cover(self, out: list[bytes]) -> None:
        if not self._masked:
            out.append(self._mask.sign)
            self._masked = True

    def pause(self) -> bytes:
        """Give out what is held, because it has been for long enough: masked, unless it is too little to tell anything.

        If it was a secret's beginning, all that follows of this secret is masked. So never LET_GO successive bytes of a
        secret are given out, whenever this is called; at worst a little that is no secret is masked.
        """
        out: list[bytes] = []
        if self.held and len(self._tail) < LET_GO:
            self._pass(out, self._tail[-self.held :])
        elif self.held:
            self._cover(out)
        self.held = 0
        return b"".join(out)

    def end(self) -> bytes:
        """Give out the rest: as at a pause, for what was cut off in the middle of a secret is most of a secret."""
        return self.pause()


def _pieces(form: bytes) -> list[bytes]:
    count = -(-len(form) // PIECE)
    size = -(-len(form) // count) if count else 1
    return [piece for start in range(0, len(form), size) if len(piece := form[start : start + size]) >= SHORTEST]


def _needed(patterns: list[bytes]) -> list[bytes]:
    """Leave out what others cover wherever it stands, as `aaaa` covers `aaaaa`: each could match at every byte."""
    if not patterns:
        return patterns
    automaton = BytesAhoCorasick(patterns)
    return [pattern for pattern in patterns if not _is_covered(automaton, pattern)]


def _automaton(patterns: list[bytes]) -> BytesAhoCorasick:
    small = sum(map(len, patterns)) <= SMALL
    return BytesAhoCorasick(patterns, implementation=Implementation.DFA if small else None)


def _is_covered(automaton: BytesAhoCorasick, pattern: bytes) -> bool:
    inside = [match for match in _matches(automaton, pattern) if match[1:] != (0, len(pattern))]
    return _united(inside) == [(0, len(pattern))]


def _matches(automaton: BytesAhoCorasick, data: bytes) -> list[tuple[int, int, int]]:
    """Find all matches: number of the pattern, start and end, in the order of their ends."""
    return automaton.find_matches_as_indexes(data, overlapping=True)


def _united(matches: Sequence[tuple[int, int, int]]) -> list[Span]:
    spans: list[Span] = []
    low = high = -1  # of the span that is being put together, from the back
    for _, start, end in reversed(matches):
        if end >= low >= 0:
            low = min(low, start)
        else:
            if low >= 0:
                spans.append((low, high))
            low, high = start, end
    if low >= 0:
        spans.append((low, high))
    spans.reverse()
    return spans


def _sign(patterns: Sequence[bytes]) -> bytes:
    """`***`, or where a secret could be made of that and what stands beside it, three of another sign."""
    taken = frozenset(chain.from_iterable((pattern[0], pattern[-1]) for pattern in patterns))
    for code in SIGNS:
        sign = bytes([code]) * 3
        if code not in taken and not any(sign in pattern for pattern in patterns):
            return sign
    return SIGNS[:1] * 3
