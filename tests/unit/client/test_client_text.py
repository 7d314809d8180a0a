"""What a guest writes may colour the terminal, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_client.text import TerminalText, one_line, safe


@pytest.mark.parametrize(
    ("given_text", "shown"),
    [
        ("plain\ttext\r\n", "plain\ttext\r\n"),
        ("\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]52;c;aGk=\x1b\\after", "after"),
        ("\x1b[2J\x1b[Hcleared", "cleared"),
        ("\x1b[?1049hscreen", "screen"),
        ("\x1bcreset", "reset"),
        ("bell\x07 and \x9b31m", "bell and 31m"),
        ("lone \x1b", "lone "),
    ],
)
def test_only_colours_pass(given_text: str, shown: str) -> None:
    assert safe(given_text) == shown


@given(text=st.text(alphabet="a\x1b[]0;m\x07\\H\n\u00e9€", max_size=40), cuts=st.lists(st.integers(1, 5)))
def test_however_it_is_cut_the_same_is_shown(text: str, cuts: list[int]) -> None:
    data, terminal, shown = text.encode(), TerminalText(), ""
    for cut in cuts:
        shown += terminal.feed(data[:cut])
        data = data[cut:]
    shown += terminal.feed(data, last=True)
    assert shown == TerminalText().feed(text.encode(), last=True)


def test_names_stay_on_their_line() -> None:
    assert one_line("a\nb\x1b[0m") == "a\ufffdb\ufffd[0m"
