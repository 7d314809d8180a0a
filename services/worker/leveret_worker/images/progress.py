"""Showing on a terminal how an image build gets on; nothing is said in a pipe."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class StepProgress:
    """Call it with a step's title; the step lasts as long as the context it gives.

    Args:
        label: stands before every step, such as the image's name.
        console: where to write; standard error by default.
    """

    def __init__(self, label: str, console: Console | None = None) -> None:
        self._label = label
        self._console = console or Console(stderr=True, soft_wrap=True)

    @contextmanager
    def __call__(self, title: str) -> Iterator[None]:
        started = time.monotonic()
        line = f"{self._label}: {title}"
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        if not self._console.is_terminal:
            yield
            return
        with Progress(*columns, console=self._console, transient=True) as shown:
            shown.add_task(line, total=None)
            yield
        self._console.print(f"{line}: {time.monotonic() - started:.1f} s", highlight=False, markup=False)
