"""A build whose tasks print what programs rarely do, and what their logs must then be, byte for byte."""

import hashlib
import re

from tests.support.dispatcher_played import DispatcherPlayed

#: The traces of the shell are off, so that a log is what the task printed after its first line.
_QUIET = "set +x; "
#: Bytes of the flood: more than any buffer on the way holds.
FLOOD = 3_000_000
TASKS = {
    "unended": _QUIET + "head -c 300000 /dev/zero | tr '\\0' x",
    "invalid": _QUIET + "python3 -c 'import os; os.write(1, bytes(range(256)) * 7)'",
    "terminal": _QUIET + r"printf 'a\rb\033[2J\033]0;title\007\0\377\376\n\n\r\n'",
    "flood": _QUIET + f"head -c {FLOOD} /dev/urandom >flooded; cat flooded",
    "closed": _QUIET + "printf before; exec >&- 2>&- </dev/null; sleep 0.5; echo after || true",
    "torn": _QUIET + "(sleep 0.5; printf late) & printf early; exec >&-; wait",
    "sum": _QUIET + "sha256sum <flooded",
}
EXPECTED = {
    "unended": b"x" * 300_000,
    "invalid": bytes(range(256)) * 7,
    "terminal": b"a\rb\x1b[2J\x1b]0;title\x07\0\xff\xfe\n\n\r\n",
    "closed": b"before",
    "torn": b"earlylate",
}


def manifest(image: str) -> str:
    """The build, for an image that has Python."""
    tasks = "".join(f"- {name}: |\n    {script}\n" for name, script in TASKS.items())
    return f"image: {image}\ntasks:\n{tasks}"


async def check(dispatcher: DispatcherPlayed) -> None:
    """The logs are what was printed."""
    printed = {name: (await dispatcher.log(name)).partition(b"\n")[2] for name in TASKS}
    for name, expected in EXPECTED.items():
        assert printed[name] == expected, name
    told = re.match(rb"[0-9a-f]{64}", printed["sum"])
    assert told is not None, printed["sum"]
    assert (len(printed["flood"]), hashlib.sha256(printed["flood"]).hexdigest().encode()) == (FLOOD, told[0])
