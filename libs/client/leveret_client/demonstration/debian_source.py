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
#: Suites a version may come from, and the keys they are signed with.
SUPPORTED = ("trixie", "bookworm")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
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
    for version in await _versions(options, package):
        downloaded = folder / "downloaded" / version
        downloaded.mkdir(parents=True)
        source = f"{package}={version}"
        try:
            await run_tool(
                ["apt-get", *options, "source", "--download-only", source], limit=DOWNLOAD_LIMIT, cwd=downloaded
            )
        except ToolError as error:
            failure = error  # a mirror may list what it does not hold; an older version will do
            continue
        for archive in sorted(downloaded.glob("*.orig.tar.*")):
            if archive.suffix != ".asc":
                return version.rpartition("-")[0], await _unpack(archive, folder / "unpacked")
    raise failure or ToolError(f"no Debian mirror has a source package of {package} with an upstream archive")


async def _versions(options: list[str], package: str) -> list[str]:
    """Give the versions of a source package that apt knows, the newest first."""
    told = await run_tool(["apt-cache", *options, "showsrc", "--only-source", package], limit=30)
    return list(dict.fromkeys(re.findall(r"^Version: (\S+)$", told, re.MULTILINE)))


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
    debian, suites = await _debian_mirrors()
    (parts / "other-suites.sources").write_text(_other_suites(debian, suites))
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


async def _debian_mirrors() -> tuple[frozenset[str], frozenset[str]]:
    """Give the URIs among apt's sources that are Debian's own, and their suites; empty where apt does not know yet."""
    told = await run_tool(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(CODENAME) $(REPO_URI)", "Identifier: Packages"], limit=30
    )
    debian = [line.split() for line in told.splitlines() if line.startswith("Debian ")]
    known = [words for words in debian if len(words) == 3]
    return frozenset(uri.rstrip("/") for _, _, uri in known), frozenset(codename for _, codename, _ in known)


def _other_suites(debian: frozenset[str], suites: frozenset[str]) -> str:
    """Give stanzas for the supported suites that this host does not use, on the mirrors it does."""
    others = [suite for suite in SUPPORTED if suite not in suites]
    archives = sorted(uri for uri in debian if "security" not in uri)
    return "".join(
        f"Types: deb-src\nURIs: {uri}\nSuites: {suite}\nComponents: main\nSigned-By: {KEYRING}\n\n"
        for uri in archives
        for suite in others
    )


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
