"""The source mirror: repositories the worker has at hand, given to a guest as a git bundle: it needs no network."""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

#: Seconds a bundle may take between two pieces.
STEP_LIMIT = 60.0
PIECE = 256 * 1024

#: What may stand behind a prefix: no `..`, no option, nothing hidden.
_REST = re.compile(r"[A-Za-z0-9~_+-][A-Za-z0-9._~+-]*(/[A-Za-z0-9~_+-][A-Za-z0-9._~+-]*)*")


class MirrorError(Exception):
    """The mirrored repository can't be read."""


class Mirror:
    """A table from URL prefix to a directory of bare repositories."""

    def __init__(self, table: Mapping[str, Path]) -> None:
        self._table = dict(table)

    def find(self, url: str) -> Path | None:
        """Give the bare repository that stands for `url`, or None. The longest prefix wins."""
        for prefix in sorted(self._table, key=len, reverse=True):
            rest = url.removeprefix(prefix).strip("/")
            if rest == url.strip("/") or not _REST.fullmatch(rest):
                continue
            for name in (rest, f"{rest}.git"):
                found = self._table[prefix] / name
                if (found / "HEAD").is_file():
                    return found
        return None

    def bundle(self, url: str) -> AsyncGenerator[bytes, None] | None:
        """Give the mirrored repository with all its refs as a stream of a git bundle, or None where there is none."""
        found = self.find(url)
        return None if found is None else _bundle(found)


async def _bundle(repository: Path) -> AsyncGenerator[bytes, None]:
    process = await asyncio.create_subprocess_exec(
        "git", "-C", str(repository), "-c", "safe.directory=*", "bundle", "create", "--quiet", "-", "HEAD", "--all",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        while True:
            async with asyncio.timeout(STEP_LIMIT):
                piece = await process.stdout.read(PIECE)
            if not piece:
                break
            yield piece
        async with asyncio.timeout(STEP_LIMIT):
            told = await process.stderr.read(2000)
            code = await process.wait()
        if code != 0:
            raise MirrorError(
                f"the source mirror can't read {repository.name}: {told.decode(errors='replace').strip()}"
            )
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
