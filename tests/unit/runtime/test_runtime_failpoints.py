import os
import signal
import subprocess
import sys

import pytest

SCRIPT = """
from leveret_runtime.failpoints import failpoint
for number in range(3):
    failpoint("mill.grind.before-ack")
    print(number, flush=True)
"""


@pytest.mark.parametrize(
    ("named", "passed", "status"),
    [
        ("mill.grind.before-ack", 0, -signal.SIGKILL),
        ("mill.grind.before-ack:3", 2, -signal.SIGKILL),
        ("mill.grind.before-ack:4", 3, 0),
        ("mill.grind", 3, 0),
        ("", 3, 0),
    ],
)
def test_the_process_is_killed_at_that_passage_and_no_other(named: str, passed: int, status: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={"LEVERET_FAILPOINT": named},
        stdout=subprocess.PIPE,
        timeout=30,
        check=False,
    )
    assert (len(ended.stdout.splitlines()), ended.returncode) == (passed, status)


def test_the_process_can_be_frozen_instead() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env={"LEVERET_FAILPOINT": "mill.grind.before-ack:2:STOP"},
        stdout=subprocess.PIPE,
    )
    with child:
        try:
            _, status = os.waitpid(child.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            child.send_signal(signal.SIGCONT)
            printed, _ = child.communicate(timeout=30)
        finally:
            child.kill()
    assert (printed.splitlines(), child.returncode) == ([b"0", b"1", b"2"], 0)
