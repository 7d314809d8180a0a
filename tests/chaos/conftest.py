"""What all crash tests share: a seed that repeats a run's choice of deeds, shown to whoever runs them."""

import os
import secrets
import sys
from collections.abc import Callable

import pytest


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Shows a text to whoever runs the tests."""

    def shown(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f" {text} ")

    return shown


@pytest.fixture
def seed(say: Callable[[str], None]) -> int:
    """That of the environment's LEVERET_CHAOS_SEED, else one of its own."""
    chosen = int(os.environ.get("LEVERET_CHAOS_SEED") or secrets.randbelow(2**32))
    say(f"LEVERET_CHAOS_SEED={chosen}")
    return chosen
