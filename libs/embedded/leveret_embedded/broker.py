"""A private RabbitMQ on loopback, as a child process with a port mapper of its own."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from leveret_embedded.child import Child, ProgramFailedError, running_child
from leveret_embedded.folder import own_folder
from leveret_embedded.ports import HOST, reserved_ports
from leveret_embedded.programs import rabbitmq_programs
from leveret_embedded.quorum import quorum_queues, until_on_disk
from leveret_embedded.server import Server
from leveret_runtime.rabbit_password import HASHING_ALGORITHM, password_hash

ADMINISTRATOR = "admin"
START_LIMIT = 60.0
_EPMD_LIMIT = 5.0
_NODE = "leveret@localhost"

# Erlang's schedulers spin before they sleep, which on a small machine takes the processor from the work to be done.
_ERLANG_ARGUMENTS = "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none"


@dataclass(frozen=True)
class BrokerPorts:
    """The four loopback ports of one broker."""

    amqp: int
    management: int
    distribution: int
    epmd: int


@dataclass
class Broker(Server):
    """A running private broker. `admin_password` belongs to the account `admin`, administrator of every virtual host
    named in the definitions, or of `/` where there are none."""

    base: Path
    ports: BrokerPorts
    admin_password: str = field(repr=False)
    management: bool
    _server: Path
    _quorum_queues: set[bytes] = field(repr=False)
    KIND = "broker"

    @property
    def host(self) -> str:
        return HOST

    @property
    def port(self) -> int:
        return self.ports.amqp

    @property
    def management_url(self) -> str:
        """Base URL of the management HTTP API. Raises RuntimeError where `management` was not asked for."""
        if not self.management:
            raise RuntimeError("this broker was started without its management plugin: pass management=True")
        return f"http://{HOST}:{self.ports.management}"

    def amqp_url(self, user: str = ADMINISTRATOR, password: str | None = None, vhost: str = "/") -> str:
        """An `amqp://` URL; without a password, that of the administrator."""
        secret = self.admin_password if password is None else password
        return f"amqp://{quote(user, safe='')}:{quote(secret, safe='')}@{HOST}:{self.port}/{quote(vhost, safe='')}"

    async def start(self) -> None:
        """Starts the broker; returns when it takes connections and a crash would lose nothing.

        Raises ProgramFailedError.
        """
        child = await Child.start(
            [self._server], env=self._environment(), cwd=self.base, log=self.base / "rabbitmq.log"
        )
        try:
            await child.until_ready(START_LIMIT)
            await until_on_disk(self.base / "data", self._quorum_queues)
        except BaseException:
            await child.kill()
            raise
        self._child = child

    async def kill(self) -> None:
        """SIGKILL, as a crash would; data and ports stay for `restart`.

        Queues declared since the start may be forgotten with their content: `quorum.until_on_disk` waits for them.
        """
        await self._started().kill()

    def _environment(self) -> dict[str, str]:
        base = self.base
        return epmd_environment(self.ports) | {
            "HOME": str(base),
            "RABBITMQ_NODENAME": _NODE,
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": str(self.ports.amqp),
            "RABBITMQ_DIST_PORT": str(self.ports.distribution),
            "RABBITMQ_MNESIA_BASE": str(base / "data"),
            "RABBITMQ_LOG_BASE": str(base / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(base / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(base / "rabbitmq.conf"),
            # Neither of these may be read from /etc.
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(base / "advanced.config"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _ERLANG_ARGUMENTS,
            "RUNNING_UNDER_SYSTEMD": "true",  # the start script becomes the broker, instead of minding it
            "ERL_CRASH_DUMP_SECONDS": "0",
        }


def epmd_environment(ports: BrokerPorts) -> dict[str, str]:
    """What makes Erlang use a port mapper of our own instead of the machine's."""
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "ERL_EPMD_ADDRESS": HOST,
        "ERL_EPMD_PORT": str(ports.epmd),
    }


def with_administrator(definitions: Mapping[str, Any] | None, password: str) -> dict[str, Any]:
    """The definitions with the account `admin` added, which may do everything in every virtual host they name."""
    document = dict(definitions or {})
    vhosts = list(document.get("vhosts") or [{"name": "/"}])
    administrator = {
        "name": ADMINISTRATOR,
        "password_hash": password_hash(password),
        "hashing_algorithm": HASHING_ALGORITHM,
        "tags": ["administrator"],
    }
    everything = [
        {"user": ADMINISTRATOR, "vhost": vhost["name"], "configure": ".*", "write": ".*", "read": ".*"}
        for vhost in vhosts
    ]
    document["vhosts"] = vhosts
    document["users"] = [user for user in document.get("users", ()) if user["name"] != ADMINISTRATOR]
    document["users"].append(administrator)
    document["permissions"] = [given for given in document.get("permissions", ()) if given["user"] != ADMINISTRATOR]
    document["permissions"] += everything
    return document


def _write_configuration(base: Path, ports: BrokerPorts, management: bool, definitions: Mapping[str, Any]) -> None:
    _write_private(base / "definitions.json", json.dumps(definitions))
    _write_private(base / ".erlang.cookie", secrets.token_hex(32), mode=0o400)
    (base / "enabled_plugins").write_text("[rabbitmq_management].\n" if management else "[].\n")
    (base / "advanced.config").write_text("[].\n")
    lines = [
        f"load_definitions = {base / 'definitions.json'}",
        "log.console.level = warning",
        "disk_free_limit.absolute = 50MB",
        "raft.wal_max_size_bytes = 64000000",
    ]
    if management:
        lines += [
            f"management.tcp.ip = {HOST}",
            f"management.tcp.port = {ports.management}",
            "management.disable_stats = true",
            "management_agent.disable_metrics_collector = true",
        ]
    (base / "rabbitmq.conf").write_text("\n".join(lines) + "\n")


def _write_private(path: Path, text: str, mode: int = 0o600) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
    path.chmod(mode)


async def _until_listening(epmd: Child, port: int) -> None:
    """epmd tells nobody that it is ready, so knock until it answers."""
    try:
        async with asyncio.timeout(_EPMD_LIMIT):
            while True:
                try:
                    _, writer = await asyncio.open_connection(HOST, port)
                except OSError:
                    if not epmd.running:
                        raise ProgramFailedError(epmd.name, "ended at once", epmd.log) from None
                    await asyncio.sleep(0.01)
                    continue
                writer.close()
                await writer.wait_closed()
                return
    except TimeoutError:
        raise ProgramFailedError(epmd.name, f"did not listen within {_EPMD_LIMIT:.0f} s", epmd.log) from None


@asynccontextmanager
async def rabbitmq(
    base: Path, *, definitions: Mapping[str, Any] | None = None, management: bool = False
) -> AsyncIterator[Broker]:
    """A broker for the length of the block, which ends with nothing of it running.

    base: folder for its data, configuration and log, made if missing. Data found there is used again.
    definitions: RabbitMQ's definitions document, loaded at every start; None leaves the virtual host `/` alone.
    management: with the HTTP API, its statistics switched off.
    Raises MissingProgramError, FolderInUseError, ProgramFailedError, NoFreePortError.
    The thread that enters the block must live as long as the block.
    """
    server, epmd_program = rabbitmq_programs()
    base = base.absolute()
    with own_folder(base), reserved_ports(4) as (amqp, mgmt, distribution, epmd_port):
        ports = BrokerPorts(amqp=amqp, management=mgmt, distribution=distribution, epmd=epmd_port)
        password = secrets.token_urlsafe(24)
        document = with_administrator(definitions, password)
        _write_configuration(base, ports, management, document)
        # Without one already listening, Erlang would start a port mapper that outlives the broker.
        epmd_argv: list[str | Path] = [epmd_program, "-address", HOST, "-port", str(epmd_port)]
        async with running_child(epmd_argv, env=epmd_environment(ports), cwd=base, log=base / "epmd.log") as epmd:
            await _until_listening(epmd, epmd_port)
            broker = Broker(base, ports, password, management, server, quorum_queues(document))
            try:
                await broker.start()
                yield broker
            finally:
                await broker.stop()
