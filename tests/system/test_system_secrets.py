"""Secrets from the command line to the guest, and nowhere else: all files of broker, database, services are searched.

A stack of its own, so that all of its files are ours to read.
"""

import asyncio
import base64
import binascii
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from leveret_client import Client, LogBytes, exits
from leveret_client.errors import CommandRefused
from leveret_embedded.stack import Options, Stack
from leveret_proto.messages import MAX_SECRET, JobView
from tests.support.journal import fetch
from tests.support.system import OWNER, Gate, manifest

LIMIT = 90
pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Command:
    """What the `leveret` command said."""

    status: int
    out: str
    err: str


@dataclass
class Told:
    """A running stack and all that was said to or by a person about it."""

    stack: Stack
    client: Client
    words: list[str]

    async def leveret(self, *arguments: str, stdin: bytes = b"") -> Command:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LEVERET_")}
        environment |= {"LEVERET_AMQP_URL": self.stack.amqp_url, "LEVERET_OWNER": OWNER}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "leveret_client.main", *arguments, env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(LIMIT):
                out, err = await process.communicate(stdin)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        said = Command(process.returncode, out.decode(), err.decode())
        self.words += [said.out, said.err]
        return said

    async def ended(
        self, task: tuple[str, str], *named: str, secrets: bool = True, environment: dict[str, str] | None = None
    ) -> JobView:
        """Have a manifest built that names the secrets `named`, and give the job once it has ended."""
        text = manifest(task, secrets=list(named), environment=environment or {})
        job = (await self.client.submit(text, project="p", secrets=secrets)).job
        async with asyncio.timeout(LIMIT):
            async for event in self.client.follow(job):
                self.words.append(repr(event))
        return await self.client.show(job)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Told]:
    options = Options(executor="process", slots=1, fsync=False)
    async with Stack.start(tmp_path_factory.mktemp("stack"), owner=OWNER, options=options) as stack:
        await stack.until_worker_ready()
        async with Client(stack.amqp_url, OWNER) as client:
            yield Told(stack, client, [])


async def test_a_file_comes_from_the_command_line_into_the_guest(told: Told) -> None:
    value = new_value()
    place = ("--file", "-", "--path", "~/.token", "--mode", "640", "--name", "the token")
    added = await told.leveret("secret", "add", *place, stdin=value)
    assert added.status == exits.OK, added.err
    uuid = added.out.strip()
    text = manifest(("look", "set +x; stat -c %a .token; sha256sum <.token"), secrets=["the token"]).encode()
    ended = await told.leveret("submit", "-", "--follow", stdin=text)
    assert ended.status == exits.OK, ended.err
    assert f"640\n{hashlib.sha256(value).hexdigest()}  -\n" in ended.out
    listed = await told.leveret("secret", "list")
    assert listed.out.split("\t")[:5] == [uuid, "file", "the token", "~/.token", "640"]
    removed = await told.leveret("secret", "rm", "the token", "--json")
    assert json.loads(removed.out)["uuid"] == uuid
    assert (await told.leveret("secret", "rm", uuid)).status == exits.NOT_FOUND
    assert await told.client.list_secrets() == ()


async def test_they_are_withheld_where_the_submission_says_so(told: Told) -> None:
    await told.client.add_secret(new_value(), "file", path="withheld", name="withheld")
    look = ("look", "test ! -e withheld")
    assert (await told.ended(look, "withheld", secrets=False)).status == "success"
    assert (await told.ended(look, "withheld")).reason == "task-failed"


async def test_a_missing_secret_fails_the_job_by_its_name(told: Told) -> None:
    text = manifest(("one", "true"), secrets=["no such key"]).encode()
    ended = await told.leveret("submit", "-", "--follow", stdin=text)
    assert ended.status == exits.FAILED
    assert "secret-missing" in ended.err and "no such key" in ended.err


async def test_what_can_not_be_kept_is_refused(told: Told) -> None:
    value = new_value()
    refused = await told.leveret("secret", "add", "--ssh-key", "-", stdin=value)
    assert refused.status == exits.FAILED and "SSH private key" in refused.err
    assert value.decode() not in refused.err + refused.out
    first = await told.client.add_secret(value, "file", path="x", name="taken", message_id="m-1")
    assert await told.client.add_secret(value, "file", path="x", name="taken", message_id="m-1") == first
    with pytest.raises(CommandRefused, match="'taken'"):
        await told.client.add_secret(value, "file", path="x", name="taken")
    with pytest.raises(CommandRefused, match="the most is"):
        await told.client.add_secret(b"x" * (MAX_SECRET + 1), "file", path="x")


async def test_a_value_is_in_no_file_of_broker_database_or_services_nor_in_anything_said(told: Told) -> None:
    file, ssh, marker = new_value(), new_value(), new_value()
    key = b"-----BEGIN X PRIVATE KEY-----\n%s\n-----END X PRIVATE KEY-----\n" % ssh
    added = await told.leveret("secret", "add", "--file", "-", "--path", "token", "--name", "unseen", stdin=file)
    assert added.status == exits.OK, added.err
    uuid = (await told.client.add_secret(key, "ssh-key")).uuid
    look = ("look", "set +x; test -s token; test -s .ssh/id_rsa; echo found")
    ended = await told.ended(look, "unseen", uuid, environment={"MARKER": marker.decode()})
    assert ended.status == "success", ended
    assert (await told.ended(look, "no such key", uuid)).reason == "secret-missing"
    await checkpoint(told.stack.database_url)

    base = told.stack.base
    with_marker = {path.relative_to(base).parts[0] for path, content in files(base) if marker in content}
    assert {"rabbitmq", "postgresql"} <= with_marker, "the search would not find what is there"
    for secret in (file, ssh):
        for form in forms(secret):
            assert [path for path, content in files(base) if form in content] == []
            assert not any(form.decode() in words for words in told.words)


#: Prints each secret in every encoding: at once, byte by byte, and split by pauses.
PRINTING = """
import base64, json, os, time
from urllib.parse import quote, quote_plus

def printed(data, size, pause=0):
    for at in range(0, len(data), size):
        os.write(1, data[at : at + size])
        time.sleep(pause)
    os.write(1, b"|\\n")

for path in (".token", ".settings", ".ssh/id_rsa"):
    value = open(path, "rb").read()
    for part in {value, value.strip(), *value.splitlines()}:
        text = part.decode()
        encoded = [part, base64.b64encode(part), base64.urlsafe_b64encode(part), base64.encodebytes(part)]
        encoded += [base64.b64encode(b":" * n + part + b"...") for n in (1, 2)]
        encoded += [quote(text, safe="").encode(), quote_plus(text).encode()]
        encoded += [json.dumps(text).encode(), part.hex().encode()]
        for data in encoded:
            printed(data, 100_000)
            printed(data, 1)
    printed(value, 7 * len(value) // 16, pause=0.15)
"""


async def test_a_build_that_prints_its_secrets_shows_none_of_them(told: Told) -> None:
    token, exported, password, ssh = (new_value() for _ in range(4))
    settings = b"export TOKEN=%s\nPASSWORD='%s'\n" % (exported, password)
    key = b"-----BEGIN X PRIVATE KEY-----\n%s\n-----END X PRIVATE KEY-----\n" % ssh
    await told.client.add_secret(token + b"\n", "file", path=".token", name="printed token")
    await told.client.add_secret(settings, "file", path=".settings", name="printed settings")
    uuid = (await told.client.add_secret(key, "ssh-key")).uuid
    gate = Gate(told.stack.base / "printed")
    script = (
        'echo "$(cat .token)"',
        '. ./.settings; echo "$PASSWORD" "the token is <$TOKEN>" >&2',
        f"{sys.executable} - <<'END'",
        PRINTING,
        "END",
        f"echo printed all; {gate.script}",
    )
    text = manifest(("print", "\n".join(script)), secrets=["printed token", "printed settings", uuid])
    job = (await told.client.submit(text, project="p")).job
    shown = bytearray()
    secrets = (token, exported, password, ssh)
    async with asyncio.timeout(LIMIT):
        async for said in told.client.follow(job):
            told.words.append(repr(said))
            if isinstance(said, LogBytes):
                shown += said.data
                if b"printed all\n" in said.data and not gate.path.exists():
                    spooled = list((told.stack.base / "spool" / "grants").rglob("logs/*"))
                    assert any(b"printed all" in path.read_bytes() for path in spooled)
                    assert secrets_in(secrets, told.stack.base / "spool" / "grants") == []
                    gate.open()
    assert (await told.client.show(job)).status == "success", shown.decode()
    assert b"the token is <***>" in shown and b"-----BEGIN X PRIVATE KEY-----" in shown
    logs = (await told.client.links(job)).logs
    assert [log.state for log in logs] == ["sealed", "sealed"]
    served = [await fetch(log.url) for log in logs]
    assert any(b"printed all\n" in log for log in served)
    await checkpoint(told.stack.database_url)
    for secret in secrets:
        assert not any(form in log for form in forms(secret) for log in (*served, bytes(shown)))
        assert not any(form.decode() in words for form in forms(secret) for words in told.words)
    assert secrets_in(secrets, told.stack.base) == []


def secrets_in(secrets: Sequence[bytes], folder: Path) -> list[Path]:
    """The files that hold one, in some form."""
    wanted = [form for secret in secrets for form in forms(secret)]
    return [path for path, content in files(folder) if any(form in content for form in wanted)]


def new_value() -> bytes:
    """A value that nothing else contains. Long enough that a part of it is telling."""
    return f"{uuid4().hex}{uuid4().hex}".encode()


def forms(value: bytes) -> Iterator[bytes]:
    """The middle of a value as it may stand in a file: as it is, in hexadecimal, in base64 at each of its offsets."""
    part = value[8:-8]
    yield part
    yield binascii.hexlify(part)
    for skipped in range(3):
        yield base64.b64encode(part[skipped:])[:-4]


def files(base: Path) -> Iterator[tuple[Path, bytes]]:
    for path in base.rglob("*"):
        try:
            if path.is_file():
                yield path, path.read_bytes()
        except FileNotFoundError:
            continue  # the database and the broker go on with their own affairs


async def checkpoint(database_url: str) -> None:
    """What PostgreSQL has in memory goes into its files."""
    on = await asyncpg.connect(database_url, timeout=LIMIT, command_timeout=LIMIT)
    try:
        await on.execute("checkpoint")
    finally:
        await on.close()
