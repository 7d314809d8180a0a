"""Files over HTTP: fetched in pieces, gone on with after a lost connection, and kept only if their digest is right."""

import asyncio
import hashlib
import http.client
import os
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.parse import quote

from leveret_client.errors import DownloadError
from leveret_runtime.away import backoff

#: Seconds for an answer, or for the next bytes.
HTTP_LIMIT = 30.0
#: Seconds without a byte after which a file is given up.
PATIENCE = 60.0
PIECE = 256 * 1024


@dataclass(frozen=True, slots=True)
class Remote:
    """A file to fetch. `name` is for people; `size` in bytes, `sha256` in hexadecimal."""

    name: str
    url: str
    size: int
    sha256: str


class _Fault(Exception):
    """Coming again may help; the text says what was wrong."""


def file_name(name: str) -> str:
    """Give a guest's name for a file as that of one plain file, whatever it says."""
    return quote(name, safe=" +,@=~").lstrip(".") or "artifact"


async def download(remote: Remote, target: Path, progress: Callable[[int], None] = lambda _: None) -> None:
    """Fetch `remote` into the file `target`, which is replaced at once and only by the right bytes.

    Args:
        progress: called with the number of bytes there are, now and then.

    Raises:
        DownloadError: it can't be fetched, or is not what was built. Nothing is left behind.
    """
    if not remote.url.startswith(("http://", "https://")):
        raise DownloadError(f"{remote.name}: {remote.url!r} is no link")
    part = target.with_name(f".{target.name[:200]}.part-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w+b") as out:
            await _fill(remote, out, progress)
        part.replace(target)
    except OSError as error:
        raise DownloadError(f"{remote.name}: {error}") from None
    finally:
        part.unlink(missing_ok=True)


async def _fill(remote: Remote, out: BinaryIO, progress: Callable[[int], None]) -> None:
    loop = asyncio.get_running_loop()
    digest, there = hashlib.sha256(), 0
    heard = loop.time()
    for delay in backoff():
        try:
            with await asyncio.to_thread(_opened, remote, there) as answer:
                while data := await asyncio.to_thread(_read, answer):
                    digest.update(data)
                    await asyncio.to_thread(out.write, data)
                    there += len(data)
                    heard = loop.time()
                    if there > remote.size:
                        raise DownloadError(f"{remote.name}: more comes than the {remote.size} bytes that were built")
                    progress(there)
            if there == remote.size:
                break
            raise _Fault("the connection was cut")
        except _Fault as fault:
            if loop.time() + delay - heard > PATIENCE:
                raise DownloadError(f"{remote.name}: {fault}; {there} of {remote.size} bytes came") from None
        await asyncio.sleep(delay)
    if digest.hexdigest() != remote.sha256:
        raise DownloadError(f"{remote.name}: what came is not what was built (SHA-256 differs)")


def _opened(remote: Remote, offset: int) -> http.client.HTTPResponse:
    """Ask for the file from `offset` on. Raises _Fault, DownloadError."""
    asked = urllib.request.Request(remote.url)
    if offset:
        asked.add_header("Range", f"bytes={offset}-")
        asked.add_header("If-Range", f'"{remote.sha256}"')
    with _faults():
        try:
            answer: http.client.HTTPResponse = urllib.request.urlopen(asked, timeout=HTTP_LIMIT)
        except HTTPError as error:
            error.close()
            # what a job ended with is at the broker, and on the server a moment later
            if error.code == http.HTTPStatus.NOT_FOUND or error.code >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
                raise _Fault(f"the server says {error.code}") from None
            raise DownloadError(f"{remote.name}: the server says {error.code}") from None
    if offset and answer.status != http.HTTPStatus.PARTIAL_CONTENT:
        answer.close()
        raise DownloadError(f"{remote.name}: the server has something else now")
    return answer


def _read(answer: http.client.HTTPResponse) -> bytes:
    with _faults():
        return answer.read1(PIECE)


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise _Fault(str(error) or type(error).__name__) from None
