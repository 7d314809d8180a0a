"""No secret comes through a mask, however it is encoded and cut; all else comes through as it is."""

import base64
import itertools
import json
import re
import string
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leveret_worker import masking
from leveret_worker.masking import LET_GO, PIECE, Mask
from leveret_worker.secret_forms import LONG, forms

#: What a test does with a masker: feed these bytes, or pause (None).
Step = bytes | None

ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes,
    "base64": base64.b64encode,
    "base64 for URLs": base64.urlsafe_b64encode,
    "base64 after one byte": lambda value: base64.b64encode(b":" + value),
    "base64 amid others": lambda value: base64.b64encode(b"me:" + value + b"\nthe end"),
    "base64 after two bytes": lambda value: base64.urlsafe_b64encode(b"a:" + value + b"!"),
    "base64 in lines": base64.encodebytes,
    "URL-quoted": lambda value: quote(value, safe="").encode(),
    "path-quoted": lambda value: re.sub("%..", lambda found: found[0].lower(), quote(value)).encode(),
    "form-quoted": lambda value: quote_plus(value).encode(),
    "hexadecimal": lambda value: value.hex().encode(),
}
TEXT_ENCODINGS: dict[str, Callable[[str], str]] = {
    "JSON": json.dumps,
    "JSON with its letters": lambda text: json.dumps(text, ensure_ascii=False),
    "shell": lambda text: "'" + text.replace("'", "'\\''") + "'",
}
#: Of few signs, so that values overlap, begin each other and repeat themselves.
few_signs = st.text("ab*", min_size=4, max_size=10).map(str.encode)
values = st.binary(min_size=4, max_size=200).filter(lambda value: len(value.strip()) >= 4)


def through(mask: Mask, steps: Iterable[Step]) -> bytes:
    masker = mask.stream()
    out = b""
    for step in steps:
        out += masker.pause() if step is None else masker.feed(step)
        assert masker.held < PIECE
    return out + masker.end()


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    at = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(at)]


def with_pauses(pieces: Sequence[bytes], paused: Sequence[bool]) -> list[Step]:
    return [
        step for piece, pause in zip(pieces, paused, strict=False) for step in ((piece, None) if pause else (piece,))
    ]


places = st.lists(st.integers(0, 10_000), max_size=12)
pauses = st.lists(st.booleans(), min_size=14, max_size=14)


@settings(max_examples=600)
@given(st.lists(values, min_size=1, max_size=3), st.binary(max_size=30), places, pauses, st.data())
def test_no_secret_in_any_encoding_comes_through_however_it_is_cut(
    secrets: list[bytes], around: bytes, at: list[int], paused: list[bool], data: st.DataObject
) -> None:
    mask = Mask(secrets)
    for name in data.draw(st.lists(st.sampled_from(list(ENCODINGS)), min_size=1, max_size=4)):
        encoded = [ENCODINGS[name](secret.strip()) for secret in secrets]
        printed = around + around.join(encoded) + around
        for steps in (cut(printed, at), with_pauses(cut(printed, at), paused), [printed]):
            out = through(mask, steps)
            for secret in secrets:
                assert secret.strip() not in out
                assert ENCODINGS[name](secret.strip()) not in out


@settings(max_examples=400)
@given(st.text(min_size=4, max_size=60).filter(lambda text: len(text.encode().strip()) >= 4), places, pauses, st.data())
def test_no_text_comes_through_however_it_is_escaped(
    secret: str, at: list[int], paused: list[bool], data: st.DataObject
) -> None:
    secret = secret.encode().strip().decode()
    encode = TEXT_ENCODINGS[data.draw(st.sampled_from(list(TEXT_ENCODINGS)))]
    mask = Mask([secret])
    printed = f"+ TOKEN={encode(secret)}\n".encode()
    for steps in (cut(printed, at), with_pauses(cut(printed, at), paused)):
        out = through(mask, steps)
        assert secret.encode() not in out
        assert encode(secret).encode() not in out


def masked_naively(mask: Mask, secrets: Iterable[bytes], data: bytes) -> bytes:
    """What a mask is to do, in time that is anything but linear: without pauses, and with a whole log at once."""
    patterns = {form for secret in secrets for form in forms(secret) if len(form) >= 4}
    covered = bytearray(len(data))
    for pattern in patterns:
        for start in range(len(data)):
            if data.startswith(pattern, start):
                covered[start : start + len(pattern)] = b"\1" * len(pattern)
    cut_off = max((n for p in patterns for n in range(LET_GO, len(p)) if data.endswith(p[:n])), default=0)
    if cut_off:
        covered[len(data) - cut_off :] = b"\1" * cut_off
    out = b""
    for is_masked, run in itertools.groupby(range(len(data)), key=covered.__getitem__):
        out += mask.sign if is_masked else bytes(data[n] for n in run)
    return out


@settings(max_examples=600)
@given(st.lists(few_signs, max_size=4), st.text("ab*", max_size=40).map(str.encode), places)
def test_all_places_of_all_secrets_are_masked_as_one_and_all_else_passes_byte_for_byte(
    secrets: list[bytes], printed: bytes, at: list[int]
) -> None:
    mask = Mask(secrets)
    expected = masked_naively(mask, secrets, printed)
    assert through(mask, [printed]) == expected
    assert through(mask, cut(printed, at)) == expected
    assert through(mask, [printed[n : n + 1] for n in range(len(printed))]) == expected


@settings(max_examples=600)
@given(st.lists(few_signs, min_size=1, max_size=4), st.text("ab*", max_size=40).map(str.encode), places, pauses)
def test_what_a_mask_puts_in_makes_no_secret_either(
    secrets: list[bytes], printed: bytes, at: list[int], paused: list[bool]
) -> None:
    out = through(Mask(secrets), with_pauses(cut(printed, at), paused))
    assert not any(secret in out for secret in secrets)


@settings(max_examples=400)
@given(st.permutations(string.ascii_letters), st.integers(4, 52), places, pauses)
def test_never_four_successive_bytes_of_a_secret_are_let_go(
    letters: list[str], length: int, at: list[int], paused: list[bool]
) -> None:
    secret = "".join(letters[:length]).encode()
    out = through(Mask([secret]), with_pauses(cut(b"1:" + secret + b":2", at), paused))
    assert out.startswith(b"1:") and out.endswith(b":2")
    assert not any(secret[n : n + LET_GO] in out for n in range(length - LET_GO + 1))


def test_a_secret_that_drips_byte_by_byte_with_pauses_is_masked_from_its_fourth_byte_on() -> None:
    drips = [step for n in range(7) for step in (b"hunter2"[n : n + 1], None)]
    assert through(Mask(["hunter2"]), [b"pass: ", *drips, b"\n"]) == b"pass: hun***\n"


def test_what_only_began_like_a_secret_goes_on_after_a_pause() -> None:
    mask = Mask(["hunter2"])
    assert through(mask, [b"hunt", b"ing\n"]) == b"hunting\n"
    assert through(mask, [b"hun", None, b"ch\n"]) == b"hunch\n"
    assert through(mask, [b"hunt", None, b"ing\n"]) == b"***ing\n"


def test_a_log_that_ends_within_a_secret_does_not_show_it() -> None:
    assert through(Mask(["hunter2hunter2"]), [b"pass: hunter2hunter"]) == b"pass: ***"


def test_a_part_that_another_secret_shares_is_masked_too() -> None:
    mask = Mask(["front-middle", "middle-back", "mid"])
    assert through(mask, [b"<front-middle-back>"]) == b"<***>"
    assert through(mask, [b"mid <middle>"]) == b"mid <middle>"  # three bytes are too short, and half a secret is none


def test_each_line_of_a_secret_is_masked_unless_it_is_short_or_tells_nothing() -> None:
    value = "first line of it\n----------\n  second-line: yes  \nshort\nexport TOKEN='abcdefgh12'\n"
    mask = Mask([value])
    for line in ("first line of it", "second-line: yes", "abcdefgh12", base64.b64encode(b"second-line: yes").decode()):
        assert mask.text(f"<{line.rstrip('=')}>").startswith("<***")
    for line in ("short", "----------", "first line"):
        assert mask.text(f"<{line}>") == f"<{line}>"
    assert mask.text(value.strip().replace("\n", "\r\n")) == "***"


def test_a_key_is_masked_and_its_armour_is_not() -> None:
    body = base64.encodebytes(bytes(range(200)) * 3).decode()
    key = f"-----BEGIN X PRIVATE KEY-----\n{body}-----END X PRIVATE KEY-----\n"
    mask = Mask([key])
    assert mask.text(key) == "-----BEGIN X PRIVATE KEY-----\n***\n-----END X PRIVATE KEY-----\n"
    assert mask.text("-----") == "-----"
    wrapped = base64.encodebytes(key.encode()).decode()
    assert set(mask.text(wrapped)) <= set("*\n=")
    assert "***" in mask.text(body.splitlines()[3])


@pytest.mark.parametrize("size", [LONG, LONG + 1, 64 * 1024])
def test_every_byte_of_a_long_value_is_masked(size: int) -> None:
    value = bytes((n * n * 31 + n // 7) % 251 for n in range(size)).replace(b"\n", b"-").strip()
    mask = Mask([value])
    assert through(mask, cut(value, range(0, size, 1000))) == mask.sign
    last = b"[A-Za-z0-9+/]?=*"  # what depends on the bytes that follow
    assert re.fullmatch(re.escape(mask.sign) + last, through(mask, [base64.b64encode(value)]))
    lines = base64.encodebytes(value).splitlines()
    assert set(through(mask, lines[:-1])) == set(mask.sign)
    assert set(through(mask, [b"\n".join(lines[:-1])])) == set(mask.sign) | set(b"\n")


def test_values_that_are_too_short_are_left_alone() -> None:
    mask = Mask(["", "abc", " x \n"])
    assert mask.idle
    assert through(mask, [b"abc ", b"x"]) == b"abc x"


def test_with_nothing_to_mask_bytes_pass_untouched_and_uncopied() -> None:
    data = b"x" * 100_000
    assert Mask(()).stream().feed(data) is data


def test_a_text_is_masked_as_a_whole() -> None:
    assert Mask(["s3cret-välue"]).text("can't open /tmp/s3cret-välue: ü") == "can't open /tmp/***: ü"
    assert Mask(()).text("\udcff") == "\udcff"


class Counting(Mask):
    """A mask that counts the bytes it looks at, and the matches it has to deal with."""

    def __init__(self, values: Iterable[str | bytes]) -> None:
        super().__init__(values)
        self.looked_at = 0
        self.matches = 0

    def spans(self, data: bytes) -> list[masking.Span]:
        assert self._automaton is not None
        self.looked_at += len(data)
        self.matches += len(self._automaton.find_matches_as_indexes(data, overlapping=True))
        return super().spans(data)


SELF_REPEATING = {
    "one byte": (["a" * n for n in range(4, 200)], b"a"),
    "a pair": (["ab" * n for n in range(2, 100)], b"ab"),
    "shifted": (["dabc" * 4, "cdabc" * 3, "abcd", "bcd" + "abcd" * 3, "d" + "abcd" * 5], b"abcd"),
    "a near miss": (["a" * 60 + "b", "a" * 59 + "c"], b"a"),
}


@pytest.mark.parametrize("name", SELF_REPEATING)
@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_time_is_linear_in_the_bytes_however_secrets_repeat_themselves(name: str, piece: int) -> None:
    secrets, period = SELF_REPEATING[name]
    mask = Counting(secrets)
    size = 16_384
    data = period * (size // len(period))
    through(mask, [data[n : n + piece] for n in range(0, len(data), piece)])
    looks = -(-len(data) // piece)
    assert mask.looked_at <= len(data) + looks * PIECE
    assert mask.matches <= 2 * mask.looked_at
