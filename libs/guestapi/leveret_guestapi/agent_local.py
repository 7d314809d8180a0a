"""The agent as a child process on the host: it takes everything it has ever started along when it ends.

A part of the agent (see `agent.py`): Python 3.7, standard library alone.
"""

from __future__ import annotations

import os

from leveret_guestapi.agent_processes import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_PDEATHSIG,
    kill_descendants,
    prctl,
    send_signal,
)
from leveret_guestapi.light import (
    signal,
)

TYPE_CHECKING = False  # the typing module is not worth its import
if TYPE_CHECKING:
    from collections.abc import Callable


def serve_locally(fd: int, serve: Callable[[int], None]) -> int:
    """Two processes, each of which ends everything when the other does: even a killed agent leaves nothing running."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    pid = os.fork()
    if pid:
        os.close(fd)
        guard(pid)
        return 0
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.set_inheritable(fd, False)
    try:
        serve(fd)
    finally:
        kill_descendants()
    return 0


def guard(pid: int) -> None:
    """Outlive the local agent `pid` and then kill whatever it left, should it have been killed itself."""
    signal.signal(signal.SIGTERM, lambda *_: send_signal(pid, signal.SIGTERM))
    while True:
        try:
            if os.waitpid(-1, 0)[0] == pid:
                break
        except ChildProcessError:
            break
    kill_descendants()
