"""Helpers of the manifest tests."""

from leveret_proto.manifest import DEFAULT_LIMITS, Limits, Manifest, read

#: The smallest manifest; tests put keys in front of or behind it.
BASE = "image: alpine/edge\ntasks:\n- build: make\n"


def accept(text: str, limits: Limits = DEFAULT_LIMITS) -> Manifest:
    """Read a manifest that must be accepted without a word."""
    reading = read(text, limits)
    assert reading.diagnostics == []
    assert reading.manifest is not None
    return reading.manifest


def warned(text: str, limits: Limits = DEFAULT_LIMITS) -> tuple[Manifest, list[tuple[int, int, str]]]:
    """Read a manifest that must be accepted; give it with place and path of each warning."""
    reading = read(text, limits)
    assert reading.manifest is not None, reading.faults
    return reading.manifest, [(w.line, w.column, w.path) for w in reading.warnings]


def faults(text: str, limits: Limits = DEFAULT_LIMITS) -> list[tuple[int, int, str]]:
    """Read a manifest that must be rejected; give place and path of each fault."""
    reading = read(text, limits)
    assert reading.manifest is None and reading.faults
    return [(fault.line, fault.column, fault.path) for fault in reading.faults]
