"""Which executor a configuration asks for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from leveret_worker.config import Config
from leveret_worker.guests import Executor
from leveret_worker.process_executor import ProcessExecutor
from leveret_worker.qemu import CageRules, Cages, Network
from leveret_worker.qemu_executor import QemuExecutor


@asynccontextmanager
async def open_executor(config: Config) -> AsyncIterator[Executor]:
    """Give the executor of `config`, which can be used within the context."""
    if config.executor == "process":
        yield ProcessExecutor(config)
        return
    async with Cages(cage_rules(config)) as cages:
        yield QemuExecutor(config, cages)


def cage_rules(config: Config) -> CageRules:
    """What the worker's cages have to be like."""
    return CageRules(
        network=Network(config.network),
        required=config.isolation == "require",
        disk_mib=config.disk_mib,
    )
