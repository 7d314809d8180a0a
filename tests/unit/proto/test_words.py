import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_proto.words import MAX_KEY, MAX_WORD, WordError, escape, join, matches, unescape

#: Any text that UTF-8 can hold (AMQP short strings are UTF-8).
TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)


def fits(text: str) -> bool:
    try:
        escape(text)
    except WordError:
        return False
    return True


@given(TEXT.filter(fits))
def test_unescape_gives_back_what_escape_was_given(text: str) -> None:
    assert unescape(escape(text)) == text


@given(TEXT.filter(fits))
def test_a_word_has_nothing_that_a_topic_exchange_reads(text: str) -> None:
    word = escape(text)
    assert word.isascii() and word.isprintable()
    assert not set(word) & set(".#* ")
    assert 1 <= len(word) <= MAX_WORD


@given(TEXT.filter(fits), TEXT.filter(fits))
def test_two_texts_never_share_a_word(one: str, other: str) -> None:
    assert (escape(one) == escape(other)) == (one == other)


@given(st.text(st.sampled_from("ab.%2EeFf~#*C3A9é "), min_size=1, max_size=12))
def test_a_word_is_read_only_in_its_one_escaped_form(word: str) -> None:
    """Else `%61da` and `ada` would be one owner under two keys, of which topic permissions guard only one."""
    try:
        text = unescape(word)
    except (WordError, UnicodeDecodeError):
        return
    assert escape(text) == word


@pytest.mark.parametrize("word", ["", "a.b", "a%2eb", "%61", "a b", "é", "%", "%zz", "a#", "a" * 129, "me\n"])
def test_words_in_another_form_are_refused(word: str) -> None:
    with pytest.raises(WordError):
        unescape(word)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(UnicodeDecodeError):
        unescape("%FF")


@pytest.mark.parametrize(
    ("text", "word"),
    [("a.b", "a%2Eb"), ("~ada", "~ada"), ("debian/trixie", "debian/trixie"), ("é", "%C3%A9"), ("100%", "100%25")],
)
def test_escaping(text: str, word: str) -> None:
    assert escape(text) == word


def test_the_bound_counts_escaped_bytes() -> None:
    assert len(escape("é" * 21 + "ab")) == MAX_WORD
    with pytest.raises(WordError, match="129 bytes"):
        escape("é" * 21 + "abc")
    with pytest.raises(WordError):
        escape("")


def test_a_key_has_a_bound() -> None:
    assert len(join("a" * 127, "b" * 127)) == MAX_KEY
    with pytest.raises(WordError, match="256 bytes"):
        join("a" * 127, "b" * 128)


WORDS = st.lists(st.sampled_from(["a", "b", ""]), max_size=5)
PATTERNS = st.lists(st.sampled_from(["a", "b", "*", "#", ""]), max_size=5)


def by_the_book(pattern: list[str], words: list[str]) -> bool:
    """The specification read aloud: `*` is exactly one word, `#` is zero or more."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(by_the_book(pattern[1:], words[skipped:]) for skipped in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and by_the_book(pattern[1:], words[1:])


@given(PATTERNS.filter(bool), WORDS.filter(bool))
def test_a_pattern_matches_as_a_topic_exchange_matches_it(pattern: list[str], words: list[str]) -> None:
    assert matches(".".join(pattern), ".".join(words)) == by_the_book(pattern, words)


def test_a_long_hostile_key_takes_no_long_time() -> None:
    assert not matches(".".join(["#"] * 100) + ".end", ".".join(["a"] * 127))
