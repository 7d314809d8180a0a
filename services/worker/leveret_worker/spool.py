"""The spool: what a worker must not forget when it is killed. One folder a grant, and the spool's own identity.

<spool>/identity              a UUID; a second session that names the same one is this worker restarted
<spool>/run/                  machines that run now; emptied at start
<spool>/grants/<grant>/       grant.json, status.json (once ended), logs/<log>, artifacts/<index>
<spool>/kept/<grant>/         settled grants, whose logs may be asked for again: as above, without artifacts
"""

import fcntl
import os
import shutil
from pathlib import Path
from uuid import uuid4

from pydantic import ValidationError

from leveret_proto.messages import AttemptStatus, Grant
from leveret_proto.words import escape, unescape


class SpoolError(Exception):
    """The spool can't be used."""


class GrantSpool:
    """The folder of one grant."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.artifacts = folder / "artifacts"
        #: The machine's files while it runs.
        self.guest = folder.parent.parent / "run" / folder.name[:13]

    @property
    def name(self) -> str:
        return self.folder.name

    def create(self, grant: Grant) -> None:
        """Write the grant down; only then is its delivery acked."""
        for folder in (self.folder, self.logs, self.artifacts):
            folder.mkdir(mode=0o700)
        _write(self.folder / "grant.json", grant.model_dump_json())

    def log_path(self, name: str) -> Path:
        return self.logs / escape(name)

    def log_names(self) -> list[str]:
        return sorted(unescape(entry.name) for entry in self.logs.iterdir())

    def read_grant(self) -> Grant | None:
        """None where the worker was killed before it had written the grant down."""
        try:
            return Grant.model_validate_json((self.folder / "grant.json").read_bytes())
        except (OSError, ValidationError):
            return None

    def write_status(self, status: AttemptStatus) -> None:
        """Write the result down; only then is it sent."""
        _write(self.folder / "status.json", status.model_dump_json())

    def read_status(self) -> AttemptStatus | None:
        try:
            return AttemptStatus.model_validate_json((self.folder / "status.json").read_bytes())
        except (OSError, ValidationError):
            return None

    def log_bytes(self) -> int:
        """How many bytes its logs take."""
        return sum(entry.stat().st_size for entry in self.logs.iterdir())

    def kept_since(self) -> float:
        """When it was settled, in seconds since 1970."""
        return self.folder.stat().st_mtime

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class Spool:
    """A worker's spool directory, locked against a second worker."""

    def __init__(self, folder: Path) -> None:
        """Raises SpoolError where `folder` can't be made or another process uses it."""
        self._grants = folder / "grants"
        self._kept = folder / "kept"
        try:
            self._grants.mkdir(parents=True, exist_ok=True)
            self._kept.mkdir(exist_ok=True)
            self._lock = (folder / "lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SpoolError(f"{folder}: another worker uses this spool") from None
        except OSError as error:
            raise SpoolError(f"{folder}: {error.strerror}") from error
        shutil.rmtree(folder / "run", ignore_errors=True)
        (folder / "run").mkdir(mode=0o711)
        identity = folder / "identity"
        if not identity.exists():
            _write(identity, str(uuid4()))
        self.identity = identity.read_text()

    def grant(self, name: str) -> GrantSpool:
        return GrantSpool(self._grants / name)

    def left(self) -> list[GrantSpool]:
        """Give what an earlier process left behind."""
        return [GrantSpool(entry) for entry in sorted(self._grants.iterdir())]

    def keep(self, name: str) -> GrantSpool:
        """Lay a settled grant aside: it is told no more, only its logs may be asked for. Raises OSError."""
        settled, kept = self.grant(name), GrantSpool(self._kept / name)
        shutil.rmtree(settled.artifacts, ignore_errors=True)
        os.utime(settled.folder)
        settled.folder.rename(kept.folder)
        return kept

    def kept(self) -> list[GrantSpool]:
        """Give the settled grants that earlier processes laid aside."""
        return [GrantSpool(entry) for entry in sorted(self._kept.iterdir())]

    def close(self) -> None:
        self._lock.close()


def _write(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
