"""A real worker opens its grant's secrets and puts them where the build finds them, and nowhere else."""

import base64
import hashlib
import platform
import shutil
from pathlib import Path
from typing import Any

import pytest
from nacl.public import PrivateKey

from leveret_proto.capability import SECRETS_TAG
from leveret_proto.messages import AttemptStatus, SealedSecret, WorkerBeat
from leveret_runtime.sealing import KEY, KeyPair, seal
from tests.support.dispatcher_played import DispatcherPlayed, StartWorker, make_grant
from tests.support.opening_keys import opening_keys
from tests.support.sealed_secrets import SSH_KEY, new_pgp_key, sealed

ARCH = platform.machine()
VALUE = b"s3cret-file-value-0123456789\n\x00\xff"


async def build(
    dispatcher: DispatcherPlayed, beat: WorkerBeat, script: str, *secrets: SealedSecret
) -> tuple[AttemptStatus, bytes]:
    """Run `script` with `secrets`; give how it ended and the log of its setup."""
    indented = "\n".join(f"    {line}" for line in script.splitlines())
    manifest = f"image: test/process\ntasks:\n- look: |\n{indented}\n"
    await dispatcher.grant(make_grant(beat, manifest, secrets=secrets), ARCH)
    ended = await dispatcher.status("ended")
    return ended, await dispatcher.log("@setup")


async def test_a_session_offers_to_take_secrets_under_a_key_of_its_own(
    dispatcher: DispatcherPlayed, start_worker: StartWorker
) -> None:
    worker = await start_worker()
    first = await dispatcher.beat()
    assert SECRETS_TAG in first.capabilities.tags
    assert (await dispatcher.beat()).public_key == first.public_key is not None
    await worker.kill()
    await start_worker()
    while (beat := await dispatcher.beat()).session == first.session:
        pass
    assert beat.public_key != first.public_key


async def test_files_and_keys_are_where_the_build_looks_for_them(
    dispatcher: DispatcherPlayed, start_worker: StartWorker, spool: Path
) -> None:
    await start_worker()
    beat = await dispatcher.beat()
    elsewhere = spool / "outside" / "deep" / "token"
    secrets = (
        sealed(beat, VALUE, name="a token", path="~/.config/app/token", mode=0o640),
        sealed(beat, VALUE, path="relative"),
        sealed(beat, VALUE, path=str(elsewhere)),
        sealed(beat, SSH_KEY, "ssh-key", name="deploy key"),
        sealed(beat, b"the second", "ssh-key"),
    )
    first, second = secrets[3].uuid, secrets[4].uuid
    script = f"""
        set +x
        stat -c '%a' .config/app/token relative {elsewhere} .ssh .ssh/{first}
        sha256sum .config/app/token relative {elsewhere} | cut -c 1-64 | uniq
        cmp .ssh/id_rsa .ssh/{first}
        test "$(cat .ssh/{second})" = "the second"
    """
    ended, setup = await build(dispatcher, beat, script, *secrets)
    assert (ended.result, ended.detail) == ("success", None)
    look = (await dispatcher.log("look")).decode().splitlines()
    assert look == ["+ set +x", "640", "600", "600", "700", "600", hashlib.sha256(VALUE).hexdigest()]
    for text in (b"a token", b"deploy key", secrets[1].uuid.encode()):
        assert b"handing over secret " + text in setup
    for value in (VALUE, SSH_KEY):
        assert value not in setup


@pytest.fixture
def pgp_key(spool: Path) -> bytes:
    return new_pgp_key(spool / "gpg")


@pytest.mark.skipif(shutil.which("gpg") is None, reason="needs gpg")
async def test_a_pgp_key_is_imported(dispatcher: DispatcherPlayed, start_worker: StartWorker, pgp_key: bytes) -> None:
    await start_worker()
    beat = await dispatcher.beat()
    script = "gpg --batch --list-secret-keys; gpgconf --kill all"
    ended, setup = await build(dispatcher, beat, script, sealed(beat, pgp_key, "pgp-key", name="signing"))
    assert ended.result == "success", ended.detail
    assert b"builder@example.org" in await dispatcher.log("look")
    assert pgp_key.splitlines()[3] not in setup


@pytest.mark.parametrize(
    ("kind", "value", "fields", "told"),
    [
        ("file", VALUE, {"path": "/proc/no/such/place"}, "/proc/no"),
        ("file", VALUE, {}, "without a path"),
        ("pgp-key", b"this is no key", {}, "gpg"),
        ("file", VALUE, {"path": "x", "sealed": seal(VALUE, KeyPair().public_key)}, "not sealed to this key"),
    ],
)
async def test_a_secret_that_can_not_be_placed_fails_the_setup_by_its_name(
    dispatcher: DispatcherPlayed, start_worker: StartWorker, kind: str, value: bytes, fields: dict[str, Any], told: str
) -> None:
    await start_worker()
    beat = await dispatcher.beat()
    secret = sealed(beat, value, kind, name="the name", **fields)
    ended, setup = await build(dispatcher, beat, "true", secret)
    assert (ended.result, ended.reason) == ("failed", "setup-failed")
    assert ended.detail is not None and ended.detail.startswith("secret the name: ") and told in ended.detail
    assert b"setup failed: secret the name: " in setup
    assert value.decode("latin-1") not in ended.detail and value not in setup


async def test_secrets_are_masked_in_the_worker_s_own_lines_and_in_what_it_says_of_the_end(
    dispatcher: DispatcherPlayed, start_worker: StartWorker
) -> None:
    """The last one's place is a path that can't be, so that errors repeat it; the first one's value is that path."""
    worker = await start_worker()
    beat = await dispatcher.beat()
    path, word = b"/proc/no/s3cret-place", b"s3cret-command-word"
    secrets = (sealed(beat, path, path="a"), sealed(beat, word, path="b"), sealed(beat, b"", path=path.decode()))
    ended, setup = await build(dispatcher, beat, "true", *secrets)
    assert (ended.result, ended.reason) == ("failed", "setup-failed")
    assert ended.detail is not None and "***" in ended.detail
    assert b"setup failed: " in setup and b"***" in setup
    for said in (ended.model_dump_json().encode(), setup, worker.log.read_bytes()):
        assert path not in said and word not in said


async def test_a_trace_shows_no_secret(dispatcher: DispatcherPlayed, start_worker: StartWorker) -> None:
    await start_worker()
    beat = await dispatcher.beat()
    value = b"it's a 100% s3cret <phrase>"
    ended, _ = await build(
        dispatcher, beat, 'word=$(cat token)\n: "$word"\necho "[$word]"', sealed(beat, value, path="token")
    )
    assert ended.result == "success"
    assert (await dispatcher.log("look")).splitlines()[1:] == [
        b"+ word='***'",
        b"+ : '***'",
        b"+ echo '[***]'",
        b"[***]",
    ]


async def test_nothing_that_opens_a_secret_is_left_in_the_spool(
    dispatcher: DispatcherPlayed, start_worker: StartWorker, spool: Path
) -> None:
    worker = await start_worker(failpoint="worker.grant.before-ack", ready=False)
    beat = await dispatcher.beat()
    secret = sealed(beat, VALUE, path="token")
    await dispatcher.grant(make_grant(beat, "image: test/process\ntasks:\n- one: 'true'\n", secrets=(secret,)), ARCH)
    await worker.until_crashed()
    (written,) = spool.glob("grants/*/grant.json")
    assert secret.sealed in written.read_text()  # or the test would look at the wrong place
    for file in spool.rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        assert VALUE.strip() not in content and base64.b64encode(VALUE) not in content
    assert beat.public_key is not None
    assert opening_keys(spool, beat.public_key) == []


def test_a_key_that_lay_in_a_file_would_be_found(tmp_path: Path) -> None:
    key = bytes(range(100, 100 + KEY))
    encoded = {"raw": key, "hex": key.hex().encode(), "base64": base64.b64encode(key).rstrip(b"=")}
    for name, content in encoded.items():
        (tmp_path / name).write_bytes(b'{"n":' + content + b"}")
        (tmp_path / f"{name}-in-a-run").write_bytes(b"a" + content + b"bc")
    planted = sorted(tmp_path.iterdir())
    assert opening_keys(tmp_path, KeyPair(seed=key).public_key) == planted
    itself = base64.b64encode(bytes(PrivateKey(key).public_key)).decode()
    assert opening_keys(tmp_path, itself) == planted
    assert opening_keys(tmp_path, KeyPair().public_key) == []
