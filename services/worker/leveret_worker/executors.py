"""Which executor a configuration asks for."""

from leveret_worker.config import Config
from leveret_worker.guests import Executor
from leveret_worker.process_executor import ProcessExecutor
from leveret_worker.qemu_executor import QemuExecutor


def make_executor(config: Config) -> Executor:
    """Give the executor of `config`."""
    return ProcessExecutor(config) if config.executor == "process" else QemuExecutor(config)
