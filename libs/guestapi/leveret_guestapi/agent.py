"""The agent as one file, for putting into a guest: the modules it consists of, joined, so that none has a second copy.

The parts are ordinary modules here (checked, tested, shared with the host); joined, they lose what only a module of its
own needs. They share one namespace then, so no two of them may define the same name.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from importlib.resources import files

PARTS = ("codec", "link", "agent_processes", "agent_tasks", "agent_files", "agent_command", "agent_main")
_HEADING = """\
#!/usr/bin/env python3
# The Leveret guest agent, joined from the modules of leveret_guestapi. Needs Python 3.7 or newer and nothing else.
from __future__ import annotations

"""


@cache
def agent_source() -> bytes:
    """The agent's source (UTF-8, about 50 KiB): run it with `python3 agent.py --port PATH` or `--fd NUMBER`."""
    package = files("leveret_guestapi")
    parts = [_without_joins(package.joinpath(name + ".py").read_text("utf-8")) for name in PARTS]
    return (_HEADING + "\n\n".join(parts)).encode("utf-8")


@cache
def agent_digest() -> str:
    """SHA-256 of `agent_source()` in hex: what a stored template of a guest must match."""
    return hashlib.sha256(agent_source()).hexdigest()


def _without_joins(source: str) -> str:
    """Drop the future import, which must come first in a file, and the imports of the other parts."""
    lines = source.splitlines()
    for node in ast.parse(source).body:
        module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        if module == "__future__" or module.startswith("leveret_guestapi."):
            assert node.end_lineno is not None
            for number in range(node.lineno - 1, node.end_lineno):
                lines[number] = ""
    return "\n".join(lines).strip() + "\n"
