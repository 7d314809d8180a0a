"""A request under way in the agent.

A part of the agent (see `agent.py`): Python 3.7, standard library alone.
"""

from __future__ import annotations

from leveret_guestapi.codec import (
    RESULT,
)

TYPE_CHECKING = False  # the typing module is not worth its import
if TYPE_CHECKING:
    from leveret_guestapi.agent_main import Agent


class Task:
    """Holds one channel until finish(). The loop calls `on_…` for frames and `advance` when room may have grown."""

    def __init__(self, agent: Agent, channel: int) -> None:
        self.agent = agent
        self.channel = channel
        self.deadline: float | None = None
        self.pid = 0  # of the process whose end it waits for

    def on_data(self, data: bytes) -> None:
        raise ValueError("this request takes no data")

    def on_end(self) -> None:
        pass

    def on_control(self, request: dict[str, object]) -> None:
        raise ValueError("this request can't be controlled")

    def on_exit(self, status: int) -> None:
        pass

    def on_deadline(self) -> None:
        pass

    def advance(self) -> None:
        pass

    def stop(self) -> None:
        """The host cancelled the request, or its session is over: release everything. Says nothing on the channel."""

    def cancel(self) -> None:
        self.stop()
        self.agent.fail(self.channel, "ECANCELED", "cancelled")

    def finish(self, result: dict[str, object]) -> None:
        self.agent.tasks.pop(self.channel, None)
        self.agent.reply(RESULT, self.channel, result)
