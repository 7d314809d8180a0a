"""Where Debian keeps the programs of the embedded stack, and who may run them."""

import os
import pwd
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# The wrappers in /usr/sbin insist on the account `rabbitmq`; this is the program behind them.
RABBITMQ_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
POSTGRESQL_ROOT = Path("/usr/lib/postgresql")
_POSTGRESQL_PROGRAMS = ("initdb", "postgres", "psql")
_UNPRIVILEGED = ("postgres", "nobody")


class MissingProgramError(RuntimeError):
    """Programs that must be installed first; the message is one line naming each with its Debian package."""

    def __init__(self, missing: Iterable[tuple[str, str]]) -> None:
        listed = ", ".join(f"{program} (Debian package {package})" for program, package in missing)
        super().__init__(f"missing: {listed}")


@dataclass(frozen=True)
class Account:
    """A Unix account that a child is started as."""

    name: str
    uid: int
    gid: int


def rabbitmq_programs() -> tuple[Path, Path]:
    """The broker's start script and Erlang's port mapper. Raises MissingProgramError."""
    epmd = shutil.which("epmd")
    missing = _missing_setpriv()
    if not os.access(RABBITMQ_SERVER, os.X_OK):
        missing.append(("rabbitmq-server", "rabbitmq-server"))
    if epmd is None:
        missing.append(("epmd", "erlang-base"))
    if epmd is None or missing:
        raise MissingProgramError(missing)
    return RABBITMQ_SERVER, Path(epmd)


def postgresql_programs(version: int | None) -> Path:
    """The folder of PostgreSQL's programs: of major `version`, or of the newest one. Raises MissingProgramError."""
    missing = _missing_setpriv()
    found = {
        int(folder.name): folder / "bin"
        for folder in (POSTGRESQL_ROOT.iterdir() if POSTGRESQL_ROOT.is_dir() else ())
        if re.fullmatch(r"[1-9][0-9]*", folder.name)
        and all(os.access(folder / "bin" / program, os.X_OK) for program in _POSTGRESQL_PROGRAMS)
    }
    chosen = version if version is not None else max(found, default=0)
    if chosen not in found:
        name = "postgresql" if version is None else f"postgresql-{version}"
        missing.append((name, name))
    if missing:
        raise MissingProgramError(missing)
    return found[chosen]


def unprivileged_account() -> Account | None:
    """Whom to run as a program that refuses root: None where we are not root. Raises MissingProgramError."""
    if os.geteuid() != 0:
        return None
    for name in _UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise MissingProgramError([("the account postgres", "postgresql-common")])


def _missing_setpriv() -> list[tuple[str, str]]:
    return [] if shutil.which("setpriv") else [("setpriv", "util-linux")]
