"""From starting an agent to its first answer, inside a guest: a script for there, and what it is given."""

import json

from leveret_guestapi import GuestClient
from leveret_guestapi.codec import AGENT, HOST
from leveret_guestapi.link import Link

STARTS = 9
#: Runs the words given to it on terminals of their own, says hello there, and prints how long each took.
SCRIPT = """
import json, os, sys, termios, time
words, hello, starts = json.loads(sys.argv[1]), bytes.fromhex(sys.argv[2]), int(sys.argv[3])
for _ in range(starts):
    ours, theirs = os.openpty()
    raw = termios.tcgetattr(theirs)
    raw[:4] = [0, 0, raw[2], 0]
    termios.tcsetattr(theirs, termios.TCSANOW, raw)
    began = time.monotonic()
    pid = os.posix_spawn(words[0], [*words, os.ttyname(theirs)], os.environ)
    os.write(ours, hello)
    answer = b""
    while b"boot_id" not in answer:
        answer += os.read(ours, 65536)
    print(time.monotonic() - began)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    os.close(ours)
    os.close(theirs)
"""


async def agent_starts(guest: GuestClient, python: str) -> list[float]:
    """Seconds of each start, the interpreter's own included."""
    words = [python, "-I", "-S", "/run/leveret/agent.py", "--port"]
    given = [json.dumps(words), _hello().hex(), str(STARTS)]
    done = await guest.run([python, "-c", SCRIPT, *given], time_limit=60)
    if not done.status.success:
        raise RuntimeError(f"the agent can't be started in the guest: {done.stderr.decode()}")
    return [float(line) for line in done.stdout.split()]


def _hello() -> bytes:
    """What a host says first: the preamble and the request."""
    host, agent = Link(HOST, bytes(16)), Link(AGENT)
    host.open_connection()
    preamble = host.data_to_send()
    agent.receive_data(preamble)
    host.receive_data(agent.data_to_send())
    host.open_channel(b'{"op":"hello"}')
    return preamble + host.data_to_send()
