"""scdoc's source as a bare repository in the cache folder: upstream's where it can be reached, else Debian's."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from leveret_client.demonstration.debian_source import download_source
from leveret_client.demonstration.tools import ToolError, run_tool

#: What the manifest names, split into the worker's source mirror prefix and the repository below it.
PREFIX = "https://git.sr.ht/~sircmpwn"
NAME = "scdoc"
URL = f"{PREFIX}/{NAME}"

#: Seconds for upstream to answer at all, and to send everything.
REACH_LIMIT = 6.0
CLONE_LIMIT = 60.0
GIT_LIMIT = 30.0
_GIT_ENVIRONMENT = {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}


async def source_mirror(cache: Path, tell: Callable[[str], None]) -> dict[str, Path]:
    """Give the worker's source mirror table for scdoc, made under `cache` the first time.

    Raises:
        ToolError: the source can't be had, neither upstream nor from Debian.
    """
    folder = cache / "sources"
    repository = folder / f"{NAME}.git"
    if not repository.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="scdoc-", dir=cache) as temporary:
            made = await _make(Path(temporary), tell)
            shutil.move(made, repository)
    return {PREFIX: folder}


async def _make(temporary: Path, tell: Callable[[str], None]) -> Path:
    bare = temporary / "bare.git"
    try:
        await _git("ls-remote", "--heads", URL, limit=REACH_LIMIT)
        tell(f"cloning {URL}")
        await _git("clone", "--quiet", "--bare", URL, bare, limit=CLONE_LIMIT)
    except ToolError:
        tell(f"{URL} can't be reached; taking Debian's source package of scdoc")
    else:
        return bare
    version, tree = await download_source(NAME, temporary)
    identity = ("-c", "user.name=Leveret", "-c", "user.email=leveret@localhost", "-c", "commit.gpgsign=false")
    await _git("-C", tree, "init", "--quiet", "--initial-branch=master")
    await _git("-C", tree, "add", "--all", "--force")
    await _git(
        "-C", tree, *identity, "commit", "--quiet", "--message", f"scdoc {version}, from Debian's source package"
    )
    await _git("clone", "--quiet", "--bare", tree, bare)
    return bare


async def _git(*arguments: str | Path, limit: float = GIT_LIMIT) -> None:
    await run_tool(["git", *arguments], limit=limit, environment=_GIT_ENVIRONMENT)
