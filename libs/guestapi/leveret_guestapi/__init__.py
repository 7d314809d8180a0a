"""The guest API: what a worker and the agent in its guest say to each other (see `docs/guestapi.md`).

`codec` is the protocol without I/O, `client` the host's side, `agent` the one-file agent for the guest, `local` runs it
as a child process.
"""

from leveret_guestapi.agent import agent_digest, agent_source
from leveret_guestapi.client import Completed, GuestClient, Process
from leveret_guestapi.codec import STDERR, STDOUT, GuestApiError, ProtocolViolation
from leveret_guestapi.conversation import AgentGone, GuestGone, GuestTimeout
from leveret_guestapi.local import local_agent
from leveret_guestapi.requests import ExitStatus, FileStatus, GuestError, Hello

__all__ = [
    "STDERR",
    "STDOUT",
    "AgentGone",
    "Completed",
    "ExitStatus",
    "FileStatus",
    "GuestApiError",
    "GuestClient",
    "GuestError",
    "GuestGone",
    "GuestTimeout",
    "Hello",
    "Process",
    "ProtocolViolation",
    "agent_digest",
    "agent_source",
    "local_agent",
]
