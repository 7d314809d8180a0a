"""Private RabbitMQ and PostgreSQL as child processes on loopback, for `leveret up`, the demo and the tests."""

from leveret_embedded.broker import Broker, rabbitmq
from leveret_embedded.child import ProgramFailedError
from leveret_embedded.database import DatabaseServer, StatementFailedError, postgresql
from leveret_embedded.folder import FolderInUseError
from leveret_embedded.ports import NoFreePortError
from leveret_embedded.programs import MissingProgramError

__all__ = [
    "Broker",
    "DatabaseServer",
    "FolderInUseError",
    "MissingProgramError",
    "NoFreePortError",
    "ProgramFailedError",
    "StatementFailedError",
    "postgresql",
    "rabbitmq",
]
