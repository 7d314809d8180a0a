"""Several of every service and worker, each brought back when it ends, as a service manager would."""

import asyncio
import os
import signal
from dataclasses import dataclass, field
from typing import Any

from tests.support.services import Service
from tests.support.system import WORKER, System


@dataclass
class Member:
    """One process of the fleet, under one name through all its lives."""

    name: str
    service: str
    environment: dict[str, str]
    process: Service
    #: Seconds it stays away after its end, once.
    away: float = 0.0
    #: What its next life is to crash at, once.
    failpoint: str | None = None
    #: What its present life is to crash at.
    armed: str | None = None
    #: Whether its present life was sent SIGKILL.
    killed: bool = False
    #: Held while somebody does something to it.
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; one that has just ended gets none."""
        if self.process.running:
            self.killed |= number is signal.SIGKILL
            os.kill(self.process.pid, number)


@dataclass(frozen=True)
class End:
    """How one life of a member ended."""

    name: str
    status: int
    #: Whether it had been sent SIGKILL.
    killed: bool
    #: What it was to crash at.
    armed: str | None

    @property
    def at_failpoint(self) -> bool:
        """Whether its failpoint killed it."""
        return self.status == -signal.SIGKILL and self.armed is not None and not self.killed

    @property
    def asked_for(self) -> bool:
        return self.status == -signal.SIGKILL and (self.killed or self.armed is not None)


class Fleet:
    """The processes of a system, by name. `mind` must run for them to come back."""

    def __init__(self, system: System) -> None:
        self._system = system
        self.members: dict[str, Member] = {}
        self.ends: list[End] = []

    def adopt(self, name: str, service: str, worker: str = WORKER, **changes: Any) -> None:
        """Take over a process that the system has started."""
        environment = self._system.environment(service, worker, **changes)
        self.members[name] = Member(name, service, environment, self._system.running[name])

    async def add(self, name: str, service: str, worker: str = WORKER, **changes: Any) -> None:
        """Start one more; return when it is ready."""
        environment = self._system.environment(service, worker, **changes)
        process = await self._system.services.start(f"leveret_{service}.main", environment)
        self._system.running[name] = process
        self.members[name] = Member(name, service, environment, process)

    async def mind(self) -> None:
        """Start again whatever ends, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for member in self.members.values():
                group.create_task(self._mind(member))

    async def _mind(self, member: Member) -> None:
        while True:
            status = await member.process.wait(limit=None)
            self.ends.append(End(member.name, status, member.killed, member.armed))
            away, member.away = member.away, 0.0
            await asyncio.sleep(away)
            member.armed, member.failpoint, member.killed = member.failpoint, None, False
            member.process = await self._system.services.start(
                f"leveret_{member.service}.main", member.environment, failpoint=member.armed, ready=False
            )
            self._system.running[member.name] = member.process

    async def kill(self) -> None:
        """End all, for good where nobody minds them."""
        async with asyncio.TaskGroup() as group:
            for member in self.members.values():
                group.create_task(member.process.kill())

    def faults(self) -> list[End]:
        """Ends that nobody asked for. An orderly one is among them: nobody here asks a member to stop."""
        return [end for end in self.ends if not end.asked_for]
