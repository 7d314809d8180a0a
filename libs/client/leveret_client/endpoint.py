"""Where the stack of a running `leveret up` is: a private file in the user's cache folder, so that another terminal
needs no arguments."""

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError


class Endpoint(BaseModel):
    """What a client needs to know of a running stack."""

    model_config = ConfigDict(frozen=True)

    amqp_url: str
    owner: str
    logs_url: str
    #: The process that holds the stack: when it is gone, so is the stack.
    pid: int


def cache_folder() -> Path:
    """Give Leveret's folder in the user's cache (XDG Base Directory Specification)."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if os.path.isabs(given) else Path.home() / ".cache") / "leveret"


def endpoint_file() -> Path:
    return cache_folder() / "up.json"


def write(endpoint: Endpoint) -> None:
    """Leave `endpoint` for other terminals of the same user; it holds a password."""
    path = endpoint_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(endpoint.model_dump_json())
    fresh.replace(path)


def remove() -> None:
    endpoint_file().unlink(missing_ok=True)


def find() -> Endpoint | None:
    """Give the running stack's endpoint, or None where none runs."""
    try:
        endpoint = Endpoint.model_validate_json(endpoint_file().read_bytes())
        os.kill(endpoint.pid, 0)
    except (FileNotFoundError, ValidationError, ProcessLookupError):
        return None
    except PermissionError:
        pass  # it runs, as somebody else
    return endpoint
