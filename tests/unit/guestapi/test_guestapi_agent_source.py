"""The one-file agent: joined rightly, old Python's syntax, nothing but the standard library, light to start."""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_guestapi import GuestClient, light, local_agent
from leveret_guestapi.agent import PACKAGE, PARTS, agent_digest, agent_source

# What each import costs a guest without KVM is written in `light.py`.
LIGHT = {"binascii", "errno", "fcntl", "os", "pwd", "select", "stat", "struct", "sys", "termios", "time"}
WRAPPED = {"_collections", "_json", "_signal"}
#: Modules beyond those of an empty program that an agent has loaded when it answers hello: its own included.
BUDGET = 22
HELLO = """
from leveret_guestapi.agent_main import Agent, main
assert main([]) == 2
Agent.answer_hello(None, None)
print(sorted(set(sys.modules) - before))
"""


def part(name: str) -> str:
    return files(PACKAGE).joinpath(f"{name}.py").read_text()


def imported(tree: ast.Module) -> set[str]:
    """All that a part imports when it runs; what only a type checker or another Python needs is left out."""
    found: set[str] = set()
    queue: list[ast.AST] = list(tree.body)
    while queue:
        node = queue.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            queue += node.orelse
        elif isinstance(node, ast.ExceptHandler) and node.type and ast.unparse(node.type) == "ImportError":
            pass
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        else:
            queue += ast.iter_child_nodes(node)
    return found


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_python_3_7_and_imports_only_what_is_light_and_carried(name: str) -> None:
    tree = ast.parse(part(name), feature_version=(3, 7))
    outside = imported(tree) - {f"{PACKAGE}.{other}" for other in PARTS}
    allowed = LIGHT | {"__future__"} | (WRAPPED if name == "light" else set())
    # Only where nothing else reaches the kernel: at the machine's end, and for a child process on the host.
    allowed |= {"ctypes"} if name in ("agent_machine", "agent_processes") else set()
    assert outside <= allowed


def test_the_file_is_python_3_7_and_carries_every_part_as_it_is() -> None:
    ast.parse(agent_source(), feature_version=(3, 7))
    carried: dict[str, object] = {"__name__": "not main"}
    path = sys.meta_path[:]
    try:
        exec(agent_source(), carried)
    finally:
        sys.meta_path[:] = path
    assert carried["SOURCES"] == {PACKAGE: ""} | {f"{PACKAGE}.{name}": part(name) for name in PARTS}


def alone(code: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    words = [sys.executable, "-I", "-S", "-", *arguments]
    return subprocess.run(words, input=code.encode(), capture_output=True, timeout=30, check=False)


def test_it_starts_alone_and_says_how_to_use_it() -> None:
    done = alone(agent_source().decode())
    assert done.returncode == 2
    assert done.stderr.startswith(b"usage: agent.py [--owns-machine] --port")


def test_it_imports_nothing_heavy_and_little_at_all_before_its_hello() -> None:
    code = agent_source().decode().replace('if __name__ == "__main__":', "if False:")
    done = alone("import sys\nbefore = set(sys.modules)\n" + code.replace("import sys\n", "", 1) + HELLO)
    loaded = set(ast.literal_eval(done.stdout.decode()))
    assert not loaded & {"asyncio", "collections", "ctypes", "enum", "functools", "json", "re", "signal", "typing"}
    assert not loaded & {f"{PACKAGE}.agent_command", f"{PACKAGE}.agent_files", f"{PACKAGE}.agent_local"}
    assert len(loaded) <= BUDGET, sorted(loaded)


def test_a_python_without_the_wrapped_modules_gets_the_wrappers() -> None:
    code = "import sys\nsys.modules['_json'] = None\n"
    code += agent_source().decode().replace('if __name__ == "__main__":', "if False:")
    code += "from leveret_guestapi import light\nprint(light.loads(b' [1, {\"a\": null}]'), light.dumps({'é': True}))"
    done = alone(code)
    assert done.stdout == b"[1, {'a': None}] b'{\"\\\\u00e9\":true}'\n", done.stderr


OLD_PYTHON = next(map(str, Path.home().glob(".pyenv/versions/3.7.*/bin/python3")), None) or shutil.which("python3.7")


@pytest.mark.skipif(OLD_PYTHON is None, reason="needs Python 3.7")
async def test_python_3_7_runs_it() -> None:
    assert OLD_PYTHON is not None
    async with local_agent(python=OLD_PYTHON) as sock, GuestClient.connect(sock, hello_timeout=20) as guest:
        assert guest.hello.python.startswith("3.7.")
        assert (await guest.run(["cat"], input=b"in and out")).stdout == b"in and out"


def test_the_digest_is_the_sources() -> None:
    assert agent_digest() == hashlib.sha256(agent_source()).hexdigest()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_it_reads_json_as_json_does(value: object) -> None:
    assert light.loads(json.dumps(value, indent=1).encode()) == value


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()))
def test_it_writes_json_as_json_does(fields: dict[str, object]) -> None:
    fields = {name: value for name, value in fields.items() if value not in (float("inf"), float("-inf"))}
    assert json.loads(light.dumps(fields)) == fields
    assert light.dumps(fields).isascii()


@pytest.mark.parametrize("text", [b"", b"{", b"[1] 2", b'"a', b'{"a" 1}', b"\xff", b'["\x01"]', b"nul"])
def test_what_is_not_json_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError):
        light.loads(text)
    code = agent_source().decode().replace('if __name__ == "__main__":', "if False:")
    code += f"from leveret_guestapi.light import loads\ntry: loads({text!r})\nexcept ValueError: print('refused')\n"
    done = alone(code)  # where nothing has loaded json.decoder, whose error C code would raise
    assert done.stdout == b"refused\n", done.stderr
