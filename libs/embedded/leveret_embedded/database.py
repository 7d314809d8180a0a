"""A private PostgreSQL server on loopback, as a child process."""

import asyncio
import os
import secrets
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from leveret_embedded import provisioning
from leveret_embedded.child import Child, run_to_end
from leveret_embedded.folder import own_folder
from leveret_embedded.ports import HOST, reserved_ports
from leveret_embedded.programs import Account, postgresql_programs, unprivileged_account
from leveret_embedded.server import Server

SUPERUSER = "postgres"
START_LIMIT = 60.0
_SQL_LIMIT = 60.0
_IPCRM_LIMIT = 10.0
_CREATION_LIMIT = 120.0
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


class StatementFailedError(RuntimeError):
    """PostgreSQL refused a statement; the message is its own."""


@dataclass
class DatabaseServer(Server):
    """A running private PostgreSQL server. `password` belongs to its superuser, `postgres`."""

    base: Path
    port: int
    password: str = field(repr=False)
    fsync: bool
    _programs: Path
    _account: Account | None
    _folder: int
    KIND = "database server"

    @property
    def host(self) -> str:
        return HOST

    @property
    def data(self) -> Path:
        return self.base / "data"

    @property
    def log(self) -> Path:
        return self.base / "postgresql.log"

    def dsn(self, database: str, user: str | None = None, password: str | None = None) -> str:
        """A `postgresql://` URL; without a user, that of the superuser."""
        if user is None:
            user, password = SUPERUSER, self.password
        secret = "" if password is None else f":{quote(password, safe='')}"
        return f"postgresql://{quote(user, safe='')}{secret}@{HOST}:{self.port}/{quote(database, safe='')}"

    async def create_database(self, name: str) -> None:
        """Makes a database that only granted roles may enter; one that is there already is left as it is."""
        exists = f"SELECT FROM pg_database WHERE datname = {provisioning.literal(name)}"
        create, *rest = provisioning.create_database(name)
        await self.execute("postgres", [_unless(exists, create), *rest])

    async def create_role(self, name: str, password: str, *, database: str | None = None) -> None:
        """Makes a role that logs in with `password`, or gives the one that is there this password.

        database: one it may enter and make its own schema in.
        """
        exists = f"SELECT FROM pg_roles WHERE rolname = {provisioning.literal(name)}"
        statements = [_unless(exists, provisioning.create_role(name)), provisioning.set_password(name, password)]
        if database is not None:
            statements.append(provisioning.admit(name, database))
        await self.execute("postgres", statements)

    async def execute(self, database: str, statements: Sequence[str]) -> None:
        """Runs statements as the superuser, one by one, no transaction around them. Raises StatementFailedError."""
        process = await asyncio.create_subprocess_exec(
            self._programs / "psql",
            "--no-psqlrc",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
            f"--dbname={self.dsn(database)}",
            env=_ENVIRONMENT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        script = "".join(f"{statement}{'' if statement.endswith('gexec') else ';'}\n" for statement in statements)
        try:
            async with asyncio.timeout(_SQL_LIMIT):
                _, errors = await process.communicate(script.encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise StatementFailedError(errors.decode(errors="replace").strip())

    async def start(self) -> None:
        """Starts the server; returns when it takes connections. Raises ProgramFailedError."""
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "fsync": "on" if self.fsync else "off",
            "full_page_writes": "on" if self.fsync else "off",
            # Files in the data folder, not in /dev/shm, where a killed server would leave them behind.
            "dynamic_shared_memory_type": "mmap",
        }
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        child = await Child.start(
            [self._programs / "postgres", "-D", self._seen_inside("data"), *arguments],
            env=_ENVIRONMENT,
            cwd=Path("/"),
            log=self.log,
            stop_signal=signal.SIGINT,  # ends sessions that are open; SIGTERM would wait for them
            account=self._account,
            pass_fds=(self._folder,),
        )
        try:
            await child.until_ready(START_LIMIT)
        except BaseException:
            await child.kill()
            raise
        self._child = child

    async def stop(self) -> None:
        await super().stop()
        await self._free_shared_memory()

    async def kill(self) -> None:
        """SIGKILL to every process of the server, as a crash of the machine would; data and port stay for `restart`."""
        child = self._started()
        if child.running:
            os.kill(child.pid, signal.SIGSTOP)  # so that no more are born while we list them
            family = [int(pid) for pid in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()]
            for pid in family:
                os.kill(pid, signal.SIGKILL)
        await child.kill()

    async def initialise(self) -> None:
        """Makes the data folder, or gives the superuser of the one that is there the password of this run."""
        if self.data.exists():
            return
        unfinished = self.base / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self._hand_over(unfinished)
        await run_to_end(
            [
                self._programs / "initdb",
                f"--pgdata={self._seen_inside(unfinished.name)}",
                f"--username={SUPERUSER}",
                f"--pwfile={self._seen_inside('password')}",
                "--auth-local=reject",
                "--auth-host=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-instructions",
                *([] if self.fsync else ["--no-sync"]),
            ],
            env=_ENVIRONMENT,
            cwd=Path("/"),
            log=self.log,
            account=self._account,
            pass_fds=(self._folder,),
            limit=_CREATION_LIMIT,
        )
        unfinished.rename(self.data)

    def _seen_inside(self, name: str) -> str:
        """What the server calls a file of `base`. As root it runs as another account, which may have no way through the
        folders above, such as /root; an inherited descriptor leads there without passing them."""
        return f"/proc/self/fd/{self._folder}/{name}"

    def _hand_over(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, self._account.uid, self._account.gid)

    async def _free_shared_memory(self) -> None:
        """Removes the System V segment that a killed server leaves in the kernel; its lock file names it."""
        lock_file = self.data / "postmaster.pid"
        if self.running or not lock_file.exists():
            return
        lines = lock_file.read_text().splitlines()
        if len(lines) < 7 or self._child is None or lines[0] != str(self._child.pid):
            return
        _, segment = lines[6].split()
        remover = await asyncio.create_subprocess_exec(
            "ipcrm", "--shmem-id", segment, env=_ENVIRONMENT, stderr=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(_IPCRM_LIMIT):
            await remover.wait()


def _unless(exists: str, statement: str) -> str:
    """A line for psql that runs `statement` unless the query `exists` has a row."""
    return f"SELECT {provisioning.literal(statement)} WHERE NOT EXISTS ({exists}) \\gexec"


def _password(base: Path, account: Account | None) -> str:
    """The superuser's password, kept beside the data it opens."""
    path = base / "password"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(24))
        if account is not None:
            os.chown(path, account.uid, account.gid)
    return path.read_text()


def _data_version(base: Path) -> int | None:
    """Major version of the data that is there already: only the same version can read it."""
    try:
        return int((base / "data" / "PG_VERSION").read_text())
    except FileNotFoundError:
        return None


@asynccontextmanager
async def postgresql(base: Path, *, fsync: bool) -> AsyncIterator[DatabaseServer]:
    """A PostgreSQL server for the length of the block, which ends with nothing of it running.

    base: folder for its data and log, made if missing. Data found there is used again.
    fsync: False is faster, and loses data only when the machine itself goes down.
    Raises MissingProgramError, FolderInUseError, ProgramFailedError, NoFreePortError.
    The thread that enters the block must live as long as the block.
    """
    base = base.absolute()
    programs, account = postgresql_programs(_data_version(base)), unprivileged_account()
    with reserved_ports(1) as (port,), own_folder(base) as folder:
        if account is not None:
            os.chown(base, account.uid, account.gid)
        server = DatabaseServer(base, port, _password(base, account), fsync, programs, account, folder)
        await server.initialise()
        try:
            await server.start()
            yield server
        finally:
            await server.stop()
