"""Readers of logs and artifacts in a running system: over HTTP, and with the `leveret` command over the broker."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from leveret_client import exits
from leveret_proto.base import Visibility
from tests.support.event_stream import LogReader
from tests.support.system import OWNER, System, manifest

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT = 60.0


async def started(system: System, *arguments: str | Path) -> asyncio.subprocess.Process:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("LEVERET_")}
    told = {"LEVERET_AMQP_URL": system.amqp_url, "LEVERET_OWNER": OWNER, "XDG_CACHE_HOME": "/nonexistent"}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "leveret_client.main", *arguments,
        env=ours | told, stdout=subprocess.PIPE, stderr=subprocess.PIPE, limit=2**24,
    )  # fmt: skip


async def leveret(system: System, *arguments: str | Path) -> tuple[int, bytes, str]:
    process = await started(system, *arguments)
    async with asyncio.timeout(LIMIT):
        out, errors = await process.communicate()
    assert process.returncode is not None
    assert b"Traceback" not in errors, errors.decode()
    return process.returncode, out, errors.decode()


async def stored(system: System, job: int, task: str, least: int) -> int:
    """Wait until at least so many bytes of a log are stored; give how many there are."""
    async with asyncio.timeout(LIMIT):
        while True:
            sizes = [
                row["contiguous"]
                for row in await system.rows(
                    "select contiguous from logsink.stream where job = $1 and label = $2", job, task
                )
            ]
            if sizes and sizes[0] >= least:
                return int(sizes[0])
            await asyncio.sleep(0.05)


async def test_readers_that_join_midway_have_exactly_the_bytes_from_there_on_across_a_killed_logsink(
    system: System,
) -> None:
    gate = system.gate()
    talk = f"set +x; i=0; until [ -e {gate.path} ]; do i=$((i+1)); printf 'line %d \\377\\r\\n' $i; sleep 0.005; done"
    job = await system.submit(manifest(("talk", talk)), visibility=Visibility.PRIVATE)
    await stored(system, job, "talk", 1000)
    (url,) = [log.url for log in (await system.client.links(job)).logs if log.task == "talk"]
    by_http = LogReader(f"{url}&follow&last=300")
    async with (
        asyncio.timeout(LIMIT),
        aiohttp.ClientSession() as http,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(by_http.read_through(http))
        terminal = await started(system, "logs", str(job), "talk", "--follow", "--last", "300")
        assert terminal.stdout is not None
        seen = await terminal.stdout.readline()
        told = group.create_task(terminal.stdout.read())
        before = await stored(system, job, "talk", 3000)
        await system.running["logsink"].kill()
        await system.start("logsink")
        await stored(system, job, "talk", before + 3000)
        gate.open()
        seen += await told
        await terminal.wait()
    assert by_http.end is not None
    assert by_http.end["state"] == "sealed"
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        whole = await response.read()
    assert hashlib.sha256(whole).hexdigest() == by_http.end["sha256"]
    assert terminal.returncode == exits.OK
    # no two lines are the same, so an end of the log is in one place alone
    for shown in (bytes(by_http.body), seen):
        assert 3000 < len(shown) < len(whole)
        assert shown == whole[-len(shown) :]
        assert shown.startswith(b"line ")
    assert len(by_http.statuses) > 1  # it was cut off, and came again


async def test_the_end_of_a_log_and_an_attempt_are_chosen(system: System) -> None:
    job = await system.submit(manifest(("a", "set +x; seq 1 100"), ("b", "set +x; printf 'x\\377'")))
    status, _, errors = await leveret(system, "logs", str(job), "--follow")
    assert status == exits.OK, errors
    assert (await leveret(system, "logs", str(job), "a", "--last", "10"))[1] == b"98\n99\n100\n"
    status, whole, _ = await leveret(system, "logs", str(job), "b", "--attempt", "1", "--last", "1GiB")
    assert (status, whole.endswith(b"x\xff")) == (exits.OK, True)
    assert (await leveret(system, "logs", str(job), "b", "--attempt", "2"))[0] == exits.NOT_FOUND


async def test_artifacts_of_a_private_job_are_listed_fetched_and_checked(system: System, tmp_path: Path) -> None:
    tasks = ("make", "mkdir d; echo one > .thing; head -c 300000 /dev/urandom > d/thing; echo two > other")
    text = manifest(tasks, artifacts=[".thing", "d/thing", "other"])
    job = await system.submit(text, visibility=Visibility.PRIVATE)
    status, _, errors = await leveret(system, "logs", str(job), "--follow")
    assert status == exits.OK, errors
    status, out, _ = await leveret(system, "artifacts", str(job))
    assert status == exits.OK
    listed = [line.split("\t") for line in out.decode().splitlines()]
    assert [(name, size) for name, size, _ in listed] == [(".thing", "4"), ("thing", "300000"), ("other", "4")]
    folder = tmp_path / "got"
    status, out, errors = await leveret(system, "artifacts", str(job), "--download", folder)
    assert (status, errors) == (exits.OK, "")
    files = [folder / "0-thing", folder / "1-thing", folder / "other"]
    assert out.decode().splitlines() == [f"{file}\t{size}" for file, (_, size, _) in zip(files, listed, strict=True)]
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    assert digests == [digest for _, _, digest in listed]
    assert sorted(folder.iterdir()) == sorted(files)
    # again: what is there is kept, what is something else only with --force replaced
    (folder / "other").write_text("mine")
    status, _, errors = await leveret(system, "artifacts", str(job), "--download", folder)
    assert (status, "--force" in errors, (folder / "other").read_text()) == (exits.FAILED, True, "mine")
    assert (await leveret(system, "artifacts", str(job), "--download", folder, "--force"))[0] == exits.OK
    assert (folder / "other").read_text() == "two\n"

    status, out, _ = await leveret(system, "links", str(job), "--json", "--for", "5m")
    reply = json.loads(out)
    assert (status, len(reply["artifacts"]), "expires_at" in reply) == (exits.OK, 3, True)
    link = reply["artifacts"][2]["url"]
    async with aiohttp.ClientSession() as http:
        async with http.get(link) as response:
            assert await response.read() == b"two\n"
        async with http.get(link.partition("?")[0]) as response:  # as it stands in events
            assert response.status == 404
