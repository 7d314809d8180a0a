"""Failpoints: named lines at which a test has the process killed (SIGKILL), to prove that a crash there loses nothing.

`LEVERET_FAILPOINT=name` kills at the first passage, `name:3` at the third; `name:3:STOP` freezes the process there
(SIGSTOP), until somebody has it go on. Without the variable a passage costs one comparison.
"""

import os
import signal

_NAME, _COUNT, _SIGNAL, *_ = (*os.environ.get("LEVERET_FAILPOINT", "").split(":"), "", "")
_left = int(_COUNT or "1")
_signal = signal.Signals[f"SIG{_SIGNAL or 'KILL'}"]


def failpoint(name: str) -> None:
    """Die here if the environment says so."""
    if name == _NAME:
        _pass()


def _pass() -> None:
    global _left
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), _signal)
