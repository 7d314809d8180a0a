"""A guest whose machine is watched: what happens to the machine ends the session at once, not with the next beat."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from leveret_guestapi import AgentGone, GuestClient
from leveret_worker.outcome import MachineEnded
from leveret_worker.qemu import Machine, MachineError

#: Seconds a closed port may stay closed: a machine that is going down closes it first, an agent that is started anew
#: opens it again and tells by itself that the session is lost.
REOPEN_LIMIT = 2.0


@asynccontextmanager
async def watched(api: GuestClient, machine: Machine) -> AsyncIterator[None]:
    """For the time of the block the session ends with its machine or agent. What the block raises comes out."""
    failure: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        watcher = tasks.create_task(_watch(api, machine))
        try:
            yield
        except Exception as error:
            # Raised again below: a task group would wrap it, and callers catch it by its type.
            failure = error
        finally:
            watcher.cancel()
    try:
        if failure is not None:
            raise failure
    finally:
        failure = None  # an exception holds this frame, which is not to hold it


async def _watch(api: GuestClient, machine: Machine) -> None:
    while True:
        await machine.wait_port_closed()
        try:
            await machine.wait_port_open(REOPEN_LIMIT)
        except MachineError:
            break
    if machine.exit_status is None:
        api.lose(AgentGone(f"the guest's agent closed its port and did not come back within {REOPEN_LIMIT:g} s"))
    else:
        api.lose(MachineEnded(machine.describe("the machine has ended")))
