"""The whole of Leveret on one machine: a private broker and database, and the five services as five child processes.

Every service has an account of its own at the broker and, where it owns a schema, a role of its own at the database.
"""

import asyncio
import base64
import fcntl
import json
import os
import secrets
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from leveret_embedded import provisioning
from leveret_embedded.broker import Broker, rabbitmq
from leveret_embedded.child import Child, ProgramFailedError
from leveret_embedded.database import DatabaseServer, postgresql
from leveret_embedded.ports import HOST, reserved_ports
from leveret_embedded.server import Server
from leveret_proto import permissions
from leveret_proto.definitions import definitions
from leveret_runtime.rabbit_password import password_hash

VHOST = "leveret"
DATABASE = "leveret"
WORKER = "local"
OPERATOR = "operator"
#: Each central service, the schema it owns, and the module it runs as.
SCHEMAS: dict[permissions.Service, str] = {
    "intake": "intake",
    "dispatcher": "dispatch",
    "logsink": "logsink",
    "notifier": "notify",
}

#: Seconds.
READY_LIMIT = 60.0
RESTART_DELAY = 0.5
#: A service that ends by itself more often than this within RESTART_WINDOW seconds is not started again.
RESTARTS = 5
RESTART_WINDOW = 60.0

Executor = Literal["qemu", "process"]
Network = Literal["none", "egress", "full"]
Progress = Callable[[str], None]


class StackInUseError(RuntimeError):
    """Another process runs a stack in this folder."""


@dataclass(frozen=True)
class Options:
    """What the worker of a stack is told, and more.

    Attributes:
        executor: `process` runs manifests on this machine without any isolation.
        slots: jobs at the same time; None leaves it to the worker.
        images: image store; None: that in the user's cache folder.
        source_mirrors: URL prefix → directory of bare repositories.
        network: what guests reach; where this machine can't confine them to that, nothing, and the worker says so.
        fsync: False for a stack whose data is thrown away.
        fresh: throw away what an earlier stack left in the folder.
        environment: further variables of every service, such as `LEVERET_NOTIFIER_SMTP_HOST`.
    """

    executor: Executor = "qemu"
    slots: int | None = None
    images: Path | None = None
    source_mirrors: Mapping[str, Path] = field(default_factory=dict)
    network: Network = "egress"
    fsync: bool = True
    fresh: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    def worker_environment(self, spool: Path) -> dict[str, str]:
        """Give the worker's variables, but for its broker URL."""
        given = {
            "LEVERET_WORKER_NAME": WORKER,
            "LEVERET_WORKER_SPOOL": str(spool),
            "LEVERET_WORKER_EXECUTOR": self.executor,
            "LEVERET_WORKER_NETWORK": self.network,
            # a machine to try things on, container or laptop, need not be one to trust others' builds to
            "LEVERET_WORKER_ISOLATION": "try",
            # when the stack stops, what runs is handed back instead of being waited for
            "LEVERET_WORKER_DRAIN_LIMIT": "0",
            "LEVERET_WORKER_SOURCE_MIRRORS": json.dumps({url: str(path) for url, path in self.source_mirrors.items()}),
        }
        if self.executor == "process":
            given["LEVERET_WORKER_UNSANDBOXED"] = "allow"
        if self.slots is not None:
            given["LEVERET_WORKER_SLOTS"] = str(self.slots)
        if self.images is not None:
            given["LEVERET_WORKER_IMAGES"] = str(self.images)
        return given


class Service:
    """One service as a child process that is started again when it ends by itself."""

    def __init__(self, name: str, environment: Mapping[str, str], base: Path, tell: Progress) -> None:
        self.name = name
        self.log = base / "log" / f"{name}.log"
        self._environment = environment
        self._base = base
        self._tell = tell
        self._child: Child | None = None
        self._stopping = False

    @property
    def pid(self) -> int:
        """Process id. Raises RuntimeError before it was started."""
        return self._started.pid

    async def start(self) -> None:
        """Start the process, without waiting for its readiness."""
        argv = [sys.executable, "-m", f"leveret_{self.name}.main"]
        self._child = await Child.start(argv, env=self._environment, cwd=self._base, log=self.log)

    async def until_ready(self) -> None:
        """Wait for its readiness. Raises ProgramFailedError with the end of its log."""
        try:
            await self._started.until_ready(READY_LIMIT)
        except ProgramFailedError as error:
            raise ProgramFailedError(f"leveret-{self.name}", "did not become ready", self.log) from error

    async def keep(self) -> None:
        """Start it again whenever it ends before `stop`. Raises ProgramFailedError where it does nothing but end."""
        loop = asyncio.get_running_loop()
        ends: list[float] = []
        while True:
            status = await self._started.wait()
            if self._stopping:
                return
            ends = [at for at in ends if loop.time() - at < RESTART_WINDOW] + [loop.time()]
            if len(ends) > RESTARTS:
                raise ProgramFailedError(f"leveret-{self.name}", f"ended {len(ends)} times in a minute", self.log)
            self._tell(f"leveret-{self.name} ended with status {status}; starting it again (its log is {self.log})")
            await asyncio.sleep(RESTART_DELAY)
            await self.start()

    async def stop(self) -> None:
        """Ask it to end; it is killed where it takes too long."""
        self._stopping = True
        if self._child is not None:
            await self._child.stop()

    @property
    def _started(self) -> Child:
        if self._child is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._child


@dataclass(frozen=True)
class Stack:
    """A running stack. Its URLs hold passwords that are new at every start."""

    base: Path
    owner: str
    #: For whoever runs the stack: an operator's account, which may submit for any owner and look after dead letters.
    amqp_url: str
    #: For an administrator of the broker.
    admin_url: str
    #: A superuser's, of the database all schemas are in.
    database_url: str
    #: Where logs and artifacts are served.
    logs_url: str
    services: Mapping[str, Service]

    @classmethod
    @asynccontextmanager
    async def start(
        cls, base: Path, *, owner: str, options: Options | None = None, progress: Progress = lambda text: None
    ) -> AsyncIterator["Stack"]:
        """Run a stack for the time of the block, which ends with nothing of it running.

        The four central services are ready when the block begins; for the worker, which may have to boot a guest
        first, there is `until_worker_ready`. The block is cancelled when a part of the stack can't be kept running.

        Args:
            base: folder for data and logs, made if missing. Data found there is used again.
            owner: for whom clients submit unless told otherwise.
            progress: is told each step, and each restart, in a line.

        Raises:
            StackInUseError, MissingProgramError, ProgramFailedError, NoFreePortError.
        """
        options = options or Options()
        base = base.absolute()
        base.mkdir(parents=True, exist_ok=True, mode=0o700)
        passwords = {name: secrets.token_urlsafe(24) for name in (*SCHEMAS, WORKER, OPERATOR)}
        try:
            with _locked(base), reserved_ports(1) as (port,):
                _make_folders(base, options.fresh)
                progress("starting PostgreSQL")
                async with postgresql(base / "postgresql", fsync=options.fsync) as database:
                    await _provision(database, passwords)
                    progress("starting RabbitMQ")
                    document = _definitions(passwords)
                    async with rabbitmq(base / "rabbitmq", definitions=document) as broker:
                        progress("starting the services")
                        services = {
                            name: Service(name, environment, base, progress)
                            for name, environment in _environments(
                                base, broker, database, passwords, port, options
                            ).items()
                        }
                        stack = cls(
                            base=base,
                            owner=owner,
                            amqp_url=broker.amqp_url(OPERATOR, passwords[OPERATOR], VHOST),
                            admin_url=broker.amqp_url(vhost=VHOST),
                            database_url=database.dsn(DATABASE),
                            logs_url=_logs_url(port),
                            services=services,
                        )
                        async with _running(broker, database, services):
                            yield stack
                            progress("stopping")
        except BaseExceptionGroup as group:
            raise _first(group) from None

    async def until_worker_ready(self) -> None:
        """Wait until the worker has proved what it can do and offers it. Raises ProgramFailedError."""
        await self.services["worker"].until_ready()


@asynccontextmanager
async def _running(broker: Broker, database: DatabaseServer, services: Mapping[str, Service]) -> AsyncIterator[None]:
    """Run the services for the time of the block, which is cancelled when one can't be kept running."""
    try:
        async with asyncio.TaskGroup() as group:
            keepers = [
                group.create_task(_must_run(broker, "RabbitMQ", broker.base / "rabbitmq.log")),
                group.create_task(_must_run(database, "PostgreSQL", database.log)),
            ]
            for service in services.values():
                await service.start()
            for name, service in services.items():
                if name != "worker":
                    await service.until_ready()
            keepers += [group.create_task(service.keep()) for service in services.values()]
            try:
                yield
            finally:
                for keeper in keepers:
                    keeper.cancel()
    finally:
        # the worker first: what it hands back must still find the others
        await services["worker"].stop()
        async with asyncio.TaskGroup() as stopping:
            for service in services.values():
                stopping.create_task(service.stop())


async def _must_run(program: Server, name: str, log: Path) -> None:
    status = await program.wait()
    raise ProgramFailedError(name, f"ended by itself with status {status}", log)


def _make_folders(base: Path, fresh: bool) -> None:
    for entry in base.iterdir() if fresh else ():
        if entry.is_dir():
            shutil.rmtree(entry)
    for name in ("log", "storage", "spool"):
        (base / name).mkdir(exist_ok=True, mode=0o700)


@contextmanager
def _locked(base: Path) -> Iterator[None]:
    with (base / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackInUseError(f"a stack runs in {base} already; end it first") from None
        yield


async def _provision(database: DatabaseServer, passwords: Mapping[str, str]) -> None:
    """Make the database, and for each service a role that owns one schema and may touch nothing else."""
    await database.create_database(DATABASE)
    for service, schema in SCHEMAS.items():
        await database.create_role(service, passwords[service])
        role = provisioning.identifier(service)
        await database.execute(
            DATABASE,
            [
                f"GRANT CONNECT ON DATABASE {provisioning.identifier(DATABASE)} TO {role}",
                f"CREATE SCHEMA IF NOT EXISTS {provisioning.identifier(schema)} AUTHORIZATION {role}",
            ],
        )


def _definitions(passwords: Mapping[str, str]) -> dict[str, object]:
    granted = {str(name): permissions.service(name) for name in permissions.SERVICES}
    granted |= {WORKER: permissions.worker(WORKER), OPERATOR: permissions.operator()}
    return definitions(VHOST, {name: (password_hash(passwords[name]), rights) for name, rights in granted.items()})


def _environments(
    base: Path,
    broker: Broker,
    database: DatabaseServer,
    passwords: Mapping[str, str],
    port: int,
    options: Options,
) -> dict[str, dict[str, str]]:
    """Give each service's environment: ours without what was meant for us, its configuration, and `options`'."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("LEVERET_")}
    # a stack's services read no file of those that are installed on this machine
    ours["CONFIGURATION_DIRECTORY"] = str(base / "configuration")
    own: dict[str, dict[str, str]] = {
        "intake": {},
        "dispatcher": {"LOGS_URL": _logs_url(port), "SECRETS_KEY": _kept_key(base / "secrets-key")},
        "logsink": {
            "STORAGE": str(base / "storage"),
            "HOST": HOST,
            "PORT": str(port),
            "LOGS_URL": _logs_url(port),
            "LINK_KEY": _kept_key(base / "link-key"),
        },
        "notifier": {"SIGNING_KEY": _kept_key(base / "signing-key")},
    }
    environments = {"worker": options.worker_environment(base / "spool")}
    environments["worker"]["LEVERET_WORKER_AMQP_URL"] = broker.amqp_url(WORKER, passwords[WORKER], VHOST)
    for name, settings in own.items():
        settings["AMQP_URL"] = broker.amqp_url(name, passwords[name], VHOST)
        settings["DATABASE_URL"] = database.dsn(DATABASE, name, passwords[name])
        environments[name] = {f"LEVERET_{name.upper()}_{key}": value for key, value in settings.items()}
    return {name: ours | given | dict(options.environment) for name, given in environments.items()}


def _kept_key(path: Path) -> str:
    """A key of 32 random bytes that stays the same as long as the data."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(base64.b64encode(secrets.token_bytes(32)).decode())
    return path.read_text()


def _logs_url(port: int) -> str:
    return f"http://{HOST}:{port}"


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
