"""The agent as one file, for putting into a guest: it carries its modules, so that none has a second copy.

The parts are ordinary modules here, checked, tested, some shared with the host. In the guest the file hands each to
Python's import when it is first asked for: so only what a guest uses is compiled, of which the start takes a third.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

PACKAGE = "leveret_guestapi"
PARTS = (
    "agent_command",
    "agent_files",
    "agent_identity",
    "agent_local",
    "agent_machine",
    "agent_main",
    "agent_processes",
    "agent_tasks",
    "channels",
    "codec",
    "light",
    "link",
)
_HEADING = f"""\
#!/usr/bin/env python3
# The Leveret guest agent with the modules it consists of. Needs CPython 3.7 or newer and nothing else.
import sys

SOURCES = {{"{PACKAGE}": ""}}
"""
_ENDING = f"""

class Parts:
    def find_spec(self, name, path=None, target=None):
        if name in SOURCES:
            return type(sys.__spec__)(name, self, is_package=name == "{PACKAGE}")

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        name = module.__name__
        exec(compile(SOURCES[name], name, "exec", dont_inherit=True), module.__dict__)


sys.meta_path.insert(0, Parts())
if __name__ == "__main__":
    from {PACKAGE}.agent_main import main

    sys.exit(main(sys.argv[1:]))
"""


@cache
def agent_source() -> bytes:
    """The agent's source (UTF-8, about 60 KiB): run it with `python3 agent.py --port PATH` or `--fd NUMBER`."""
    package = files(PACKAGE)
    parts = [_carried(name, package.joinpath(name + ".py").read_text("utf-8")) for name in PARTS]
    return (_HEADING + "".join(parts) + _ENDING).encode("utf-8")


@cache
def agent_digest() -> str:
    """SHA-256 of `agent_source()` in hex: what a stored template of a guest must match."""
    return hashlib.sha256(agent_source()).hexdigest()


def _carried(name: str, source: str) -> str:
    if "'''" in source or not source.endswith("\n"):
        raise ValueError(f"{name} can't be carried as a raw text")
    return f"SOURCES[\"{PACKAGE}.{name}\"] = r'''{source}'''\n"
