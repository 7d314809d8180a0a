"""Fetching a file from a real HTTP server that is slow to have it, cuts it, or lies."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from leveret_client import DownloadError, downloading
from leveret_client.commands.artifacts import targets
from leveret_client.downloading import Remote, download, file_name
from leveret_proto.messages import ArtifactLink

BODY = os.urandom(700_000)
SHA256 = hashlib.sha256(BODY).hexdigest()

Answer = Callable[[web.Request, int], web.Response]


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[tuple[str, list[str | None]]]:
    """A server whose n-th answer (from 0) is `answer(request, n)`; the URL, and each request's Range."""
    ranges: list[str | None] = []

    async def handle(request: web.Request) -> web.Response:
        ranges.append(request.headers.get("Range"))
        return answer(request, len(ranges) - 1)

    app = web.Application()
    app.router.add_get("/file", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/file", ranges
    finally:
        await runner.cleanup()


def remote(url: str) -> Remote:
    return Remote("thing", url, len(BODY), SHA256)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_a_file_that_comes_late_and_in_parts_is_fetched_whole(tmp_path: Path) -> None:
    def answer(request: web.Request, turn: int) -> web.Response:
        if turn == 0:
            return web.Response(status=404)
        if turn == 1:
            return web.Response(body=BODY[:300_000])
        start = int((request.headers["Range"]).removeprefix("bytes=").removesuffix("-"))
        assert request.headers["If-Range"] == f'"{SHA256}"'
        return web.Response(status=206, body=BODY[start:])

    told: list[int] = []
    async with serving(answer) as (url, ranges):
        await download(remote(url), tmp_path / "got", told.append)
    assert (tmp_path / "got").read_bytes() == BODY
    assert left(tmp_path) == ["got"]
    assert ranges == [None, None, "bytes=300000-"]
    assert told == sorted(told)
    assert told[-1] == len(BODY)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda *_: web.Response(body=BODY[:-1] + b"x"), "SHA-256 differs"),
        (lambda *_: web.Response(body=BODY + b"x"), "more comes"),
        (lambda *_: web.Response(status=403), "the server says 403"),
        (lambda _, n: web.Response(body=BODY[: 1000 if n == 0 else None]), "something else now"),
        (lambda *_: web.Response(status=404), "the server says 404; 0 of 700000 bytes came"),
    ],
)
async def test_what_can_not_be_had_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer, why: str
) -> None:
    monkeypatch.setattr(downloading, "PATIENCE", 0.5)
    (tmp_path / "got").write_text("before")
    async with serving(answer) as (url, _):
        with pytest.raises(DownloadError, match=why):
            await download(remote(url), tmp_path / "got")
    assert left(tmp_path) == ["got"]
    assert (tmp_path / "got").read_text() == "before"


async def test_a_link_that_is_none_reads_no_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    with pytest.raises(DownloadError, match="is no link"):
        await download(remote(secret.as_uri()), tmp_path / "got")


async def test_a_download_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    begun = asyncio.Event()
    async with serving(lambda *_: web.Response(body=BODY[:1000])) as (url, _):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(download(remote(url), tmp_path / "got", lambda _: begun.set()))
            await begun.wait()
            task.cancel()
    assert left(tmp_path) == []


def test_names_of_guests_become_plain_files() -> None:
    assert file_name("a b.tar.gz") == "a b.tar.gz"
    for hostile in ("../x", "..", ".", "/etc/passwd", ".bashrc", "a\0b", "\x1b[2J"):
        name = file_name(hostile)
        assert name == Path(name).name
        assert name.isprintable()
        assert not name.startswith(".")


def test_artifacts_of_one_name_do_not_meet() -> None:
    links = [
        ArtifactLink(attempt=1, index=index, name=name, bytes=1, sha256=SHA256, url="http://x/")
        for index, name in enumerate(("a", "b", "a"))
    ]
    assert [path.name for path in targets(links, Path("d"))] == ["0-a", "b", "2-a"]
