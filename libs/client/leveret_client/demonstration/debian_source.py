"""Debian's source package of a program, from the mirrors apt is configured for, without changing apt's configuration.

The configured sources are read as source sources (`deb-src`) in a private folder, with lists of their own.
"""

import re
import shlex
from pathlib import Path

from leveret_client.demonstration.tools import ToolError, run_tool

#: Seconds.
UPDATE_LIMIT = 180.0
DOWNLOAD_LIMIT = 120.0
UNPACK_LIMIT = 60.0
_LINE = re.compile(r"^\s*deb\s+")
_TYPES = re.compile(r"^Types:.*$", re.MULTILINE | re.IGNORECASE)


async def download_source(package: str, folder: Path) -> tuple[str, Path]:
    """Download and unpack the upstream source of Debian's `package` below `folder`.

    Returns: its version and the folder of the unpacked source.

    Raises:
        ToolError: no mirror can be reached, or there is no such package.
    """
    options = await _private_apt(folder)
    failure: ToolError | None = None
    try:
        await run_tool(["apt-get", *options, "update"], limit=UPDATE_LIMIT)
    except ToolError as error:
        failure = error  # one mirror of several may be unreachable: what counts is whether the package comes
    downloaded = folder / "downloaded"
    downloaded.mkdir()
    try:
        await run_tool(
            ["apt-get", *options, "source", "--download-only", package], limit=DOWNLOAD_LIMIT, cwd=downloaded
        )
    except ToolError as error:
        raise ToolError(f"{error}; {failure}" if failure is not None else str(error)) from None
    for archive in sorted(downloaded.glob("*.orig.tar.*")):
        if archive.suffix != ".asc":
            return archive.name.partition("_")[2].partition(".orig")[0], await _unpack(archive, folder / "unpacked")
    raise ToolError(f"Debian's source package of {package} has no upstream archive")


async def _unpack(archive: Path, into: Path) -> Path:
    # not by tarfile: Debian 12's Python has no extraction filters yet
    into.mkdir()
    await run_tool(["tar", "--extract", "--no-same-owner", "--file", archive, "--directory", into], limit=UNPACK_LIMIT)
    entries = list(into.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else into


async def _private_apt(folder: Path) -> list[str]:
    """Give apt options under which it reads `deb-src` of Debian's mirrors, and writes below `folder` alone."""
    parts = folder / "sources"
    for made in (parts, folder / "lists" / "partial", folder / "cache" / "archives" / "partial"):
        made.mkdir(parents=True)
    debian = await _debian_mirrors()
    for number, path in enumerate(await _source_files()):
        text = path.read_text(errors="replace")
        told = _stanzas(text, debian) if path.suffix == ".sources" else _lines(text, debian)
        (parts / f"{number:02}{path.suffix}").write_text(told)
    settings = {
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": f"{parts}/",
        "Dir::State::lists": f"{folder}/lists/",
        "Dir::Cache": f"{folder}/cache/",
        "APT::Sandbox::User": "",  # as root apt would become a user who may not enter the cache folder
        "Acquire::Languages": "none",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


async def _debian_mirrors() -> frozenset[str]:
    """Give the URIs among apt's sources that are Debian's own; empty where apt does not know yet."""
    told = await run_tool(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)", "Identifier: Packages"], limit=30
    )
    lines = (line.partition(" ") for line in told.splitlines())
    return frozenset(uri.rstrip("/") for origin, _, uri in lines if origin == "Debian")


async def _source_files() -> list[Path]:
    told = await run_tool(
        ["apt-config", "shell", "LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d"], limit=30
    )
    found = dict(word.partition("=")[::2] for word in shlex.split(told))
    parts = Path(found.get("PARTS", "/nonexistent"))
    listed = sorted(parts.glob("*.list")) + sorted(parts.glob("*.sources")) if parts.is_dir() else []
    return [path for path in (Path(found.get("LIST", "/nonexistent")), *listed) if path.is_file()]


def _lines(text: str, wanted: frozenset[str]) -> str:
    """Turn the wanted lines of a one-line-style file into `deb-src` ones (sources.list(5))."""
    kept = [line for line in text.splitlines() if _LINE.match(line) and _wanted(line, wanted)]
    return "".join(_LINE.sub("deb-src ", line) + "\n" for line in kept)


def _stanzas(text: str, wanted: frozenset[str]) -> str:
    """Turn the wanted stanzas of a deb822-style file into `deb-src` ones."""
    uncommented = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    kept = [stanza.strip() for stanza in re.split(r"\n\s*\n", uncommented) if _TYPES.search(stanza)]
    return "\n".join(_TYPES.sub("Types: deb-src", stanza) + "\n" for stanza in kept if _wanted(stanza, wanted))


def _wanted(source: str, wanted: frozenset[str]) -> bool:
    return not wanted or any(word.rstrip("/") in wanted for word in source.split())
