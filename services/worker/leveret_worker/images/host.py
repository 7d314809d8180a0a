"""Running the commands of an image build on this host: found, limited in time, as root where they must be."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from leveret_worker.images.errors import ImageError

SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
_TAIL = 4000
_TERMINATION_GRACE = 20
_REMOVAL = 900.0


def require_commands(needs: Mapping[str, str]) -> None:
    """Make sure the commands are there.

    Args:
        needs: command → the Debian package that holds it.

    Raises:
        ImageError: names all packages to install, not just the first.
    """
    missing = sorted({package for command, package in needs.items() if shutil.which(command, path=SEARCH_PATH) is None})
    if missing:
        raise ImageError("this host lacks what the build needs: install " + " ".join(missing))


def require_root() -> None:
    """Make sure that `run(root=True)` will work.

    Raises:
        ImageError: neither root nor able to become it without being asked for a password.
    """
    if os.geteuid() == 0:
        return
    if shutil.which("sudo") is None or subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode != 0:
        raise ImageError(
            "making a root file system needs root: run it as root, or as a user whom sudo asks no password"
        )


def run(
    command: list[str],
    *,
    log: Path,
    limit: float,
    root: bool = False,
    environment: Mapping[str, str] | None = None,
    output: IO[bytes] | None = None,
) -> None:
    """Run a command to its end.

    Args:
        command: what to run, found also in /usr/sbin.
        log: its standard error is added to this file, and its standard output too unless `output` is given.
        limit: seconds until it is ended.
        root: run it through `sudo -n` unless we are root.
        environment: variables added to its environment.
        output: where its standard output goes.

    Raises:
        ImageError: it failed or took too long; the message ends with the last lines it wrote.
    """
    variables = {"PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8", **_proxies(), **(environment or {})}
    settings = [f"{name}={value}" for name, value in variables.items()]
    prefix = ["sudo", "-n"] if root and os.geteuid() != 0 else []
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [*prefix, "env", *settings, *command], stdin=subprocess.DEVNULL, stdout=output or errors, stderr=errors
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired as error:
            _end(process, prefix)
            raise ImageError(f"{command[0]} did not end within {limit:.0f} s:\n{_tail(log)}") from error
        except BaseException:
            _end(process, prefix)
            raise
    if status != 0:
        raise ImageError(f"{command[0]} ended with status {status}:\n{_tail(log)}")


def remove_tree(work: Path) -> None:
    """Remove a build's directory, with the root-owned tree in it, if it is there.

    Raises:
        ImageError: root's help is needed and not to be had.
    """
    if not work.exists():
        return
    if os.geteuid() != 0 and (work / "tree").exists():
        run(["rm", "-rf", "--one-file-system", str(work / "tree")], log=work / "removal", limit=_REMOVAL, root=True)
    shutil.rmtree(work)


def _end(process: subprocess.Popen[bytes], prefix: list[str]) -> None:
    """End a command that we may not be allowed to signal ourselves; it gets time to clean up (unmount, remove)."""
    for signal in ("TERM", "KILL"):
        if process.poll() is None:
            subprocess.run([*prefix, "kill", f"-{signal}", str(process.pid)], capture_output=True, check=False)
        try:
            process.wait(_TERMINATION_GRACE)
            return
        except subprocess.TimeoutExpired:
            continue


def _proxies() -> dict[str, str]:
    names = ("http_proxy", "https_proxy", "no_proxy")
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def _tail(log: Path) -> str:
    return log.read_bytes()[-_TAIL:].decode(errors="replace").strip()
