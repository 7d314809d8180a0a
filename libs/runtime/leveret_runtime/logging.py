"""Structured logs: fields to systemd's journal, coloured lines to a terminal, JSON lines to a pipe or file."""

import logging
import sys
from collections.abc import Callable
from typing import Any

import structlog

from leveret_runtime import journal


def configure(service: str, level: str = "info") -> None:
    """Set up structlog and the standard library's logging for this process, on standard error."""
    number = logging.getLevelNamesMapping()[level.upper()]
    last, made = _output()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=made,
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    logging.basicConfig(
        stream=sys.stderr, level=max(number, logging.WARNING), format="%(name)s: %(message)s", force=True
    )
    # A lost connection is reported by us, once; the client library's own account of it adds nothing.
    for noisy in ("aio_pika", "aiormq"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)


def _output() -> tuple[list[structlog.typing.Processor], Callable[..., Any]]:
    """Give the last steps of an event's way, and what makes the logger at its end."""
    to_stderr = structlog.PrintLoggerFactory(sys.stderr)
    if sys.stderr.isatty():
        return [structlog.dev.ConsoleRenderer()], to_stderr
    if journal.is_ours():
        entry: structlog.typing.Processor = lambda _, __, facts: journal.entry(facts)  # noqa: E731
        return [structlog.processors.format_exc_info, entry], lambda *_: journal.JournalLogger()
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()], to_stderr
