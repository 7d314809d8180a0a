"""The one-file agent: joined rightly, old Python's syntax, nothing but the standard library, light to start."""

from __future__ import annotations

import ast
import hashlib
import subprocess
import sys
from importlib.resources import files

from leveret_guestapi.agent import PARTS, agent_digest, agent_source

LIGHT = {"errno", "fcntl", "json", "os", "pwd", "select", "signal", "stat", "struct", "sys", "termios", "time"} | {
    "__future__",
    "binascii",
    "collections",
    "functools",
}


def test_it_is_python_3_7_and_imports_only_what_is_light() -> None:
    tree = ast.parse(agent_source(), feature_version=(3, 7))
    imported = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    assert imported <= LIGHT


def test_no_two_parts_define_the_same_name() -> None:
    owners: dict[str, str] = {}
    for part in PARTS:
        for node in ast.parse(files("leveret_guestapi").joinpath(f"{part}.py").read_text()).body:
            names = []
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names = [node.name]
            elif isinstance(node, ast.Assign):
                names = [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
            for name in names:
                if name != "TYPE_CHECKING":
                    assert owners.setdefault(name, part) == part, f"{name} is defined in {owners[name]} and {part}"


def test_it_starts_alone_and_says_how_to_use_it() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-"], input=agent_source(), capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"usage: agent.py --port")


def test_it_imports_nothing_heavy() -> None:
    code = agent_source().decode().replace('if __name__ == "__main__":', "if False:") + "\nprint(sorted(sys.modules))\n"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-"], input=code.encode(), capture_output=True, timeout=30, check=True
    )
    loaded = set(ast.literal_eval(done.stdout.decode()))
    assert not loaded & {"asyncio", "typing", "subprocess", "socket", "ctypes", "threading", "logging"}


def test_the_digest_is_the_sources() -> None:
    assert agent_digest() == hashlib.sha256(agent_source()).hexdigest()
