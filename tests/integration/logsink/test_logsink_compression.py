"""Sealed logs are compressed behind their readers' backs."""

import asyncio
from pathlib import Path

import pytest
from pydantic import SecretStr

from leveret_logsink import compression
from leveret_logsink.compression import Compression
from leveret_logsink.storage import Storage, StorageFull
from leveret_proto.links import log_path
from leveret_runtime.db import Database
from tests.integration.logsink.stage import LIMIT, LINK, Stage, facts, pieces, sha256

BODY = b"".join(b"line %d of a log that is worth compressing\n" % number for number in range(20_000))


def files(storage: Path) -> set[str]:
    return {path.name for path in storage.rglob("*") if path.is_file()}


async def test_sealed_logs_are_compressed_and_read_the_same(stage: Stage) -> None:
    sink = await stage.logsink()
    await stage.dispatcher.started(facts(18), 1, "w1")
    await stage.w1.log(18, 1, "build", BODY, size=50_000)
    await stage.w1.log(18, 1, "small", b"a few bytes\n")
    await stage.w1.artifact(18, 1, 0, "out", pieces(BODY, 100_000), BODY)
    await stage.until("select count(*) = 3 and bool_and(compress_at is null and state = 'sealed') from stream")
    assert files(stage.storage) == {"build.log.zst", "small.log", "0"}

    url = stage.url(sink) + log_path(18, LINK, 1, "build")
    status, headers, body = await stage.get(url)
    assert (status, headers["ETag"], body) == (200, f'"{sha256(BODY)}"', BODY)
    status, headers, body = await stage.get(url, Range="bytes=300000-700000")
    assert (status, body) == (206, BODY[300_000:700_001])
    assert (await stage.get(url, Range="bytes=-10"))[2] == BODY[-10:]
    # what comes again is neither stored nor refused
    await stage.w1.log(18, 1, "build", BODY, size=50_000)
    await stage.w1.log(18, 1, "last", b"after it\n")
    await stage.until("select state = 'sealed' from stream where label = 'last'")
    assert files(stage.storage) == {"build.log.zst", "small.log", "last.log", "0"}
    assert stage.dead.empty()


async def test_a_download_goes_on_while_its_log_is_compressed(stage: Stage) -> None:
    """The reader has taken the first bytes when the file it began with goes."""
    body = BODY * 20
    sink = await stage.logsink()
    await stage.dispatcher.started(facts(18), 1, "w1")
    for offset, part in pieces(body, 250_000):
        await stage.w1.chunk(18, 1, "build", offset, part)
    await stage.until("select contiguous = $1 from stream", len(body))
    async with stage.http.get(stage.url(sink) + log_path(18, LINK, 1, "build")) as response:
        found = await response.content.readexactly(1000)
        await stage.w1.chunk(18, 1, "build", len(body), b"", whole=body)
        await stage.until("select state = 'sealed' and compress_at is null from stream")
        assert files(stage.storage) == {"build.log.zst"}
        found += await response.read()
    assert found == body


async def test_what_was_claimed_and_not_finished_comes_up_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full half-way; a second logsink has nothing to do meanwhile; later it is done."""
    sink = await stage.logsink()
    await stage.dispatcher.started(facts(18), 1, "w1")
    await stage.w1.log(18, 1, "build", BODY, size=50_000)
    await stage.until("select state = 'sealed' and compress_at is null from stream")
    await sink.terminate()
    stop = asyncio.Event()

    class Full(Storage):
        def compress(self, *_: object) -> int:
            raise StorageFull("storage: No space left on device")

    async with Database.open(SecretStr(stage.database.dsn_for("logsink")), "logsink") as database:
        async with database.connection() as on:
            await on.execute("update stream set compress_at = now()")
        with pytest.raises(StorageFull):
            await Compression(database, Full(stage.storage)).compress_one(stop)
        other = Compression(database, Storage(stage.storage))
        assert not await other.compress_one(stop)
        monkeypatch.setattr(compression, "AGAIN", 0.0)
        async with database.connection() as on:
            await on.execute("update stream set compress_at = compress_at - interval '1 hour'")
        async with asyncio.timeout(LIMIT):
            assert await other.compress_one(stop)
            assert not await other.compress_one(stop)
