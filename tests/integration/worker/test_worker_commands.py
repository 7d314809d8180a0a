"""Short commands of the worker, on the event loop that it runs on."""

import uvloop

from leveret_worker.qemu.processes import Finished, finish

#: Each ends before, while or after its input is dealt with, as chance has it.
COMMANDS = 200


def test_a_command_that_ends_at_once_has_ended_well() -> None:
    async def run() -> set[Finished]:
        return {await finish(["true"], limit=10, requests=b"never read") for _ in range(COMMANDS)}

    assert uvloop.run(run()) == {Finished(0, "", "")}


def test_a_command_reads_what_it_is_given() -> None:
    async def run() -> Finished:
        return await finish(["cat"], limit=10, requests=b"given")

    assert uvloop.run(run()) == Finished(0, "given", "")
