"""`leveret secret`: what is asked wrongly is said before anything is sent, and no value is ever repeated."""

import base64
from pathlib import Path

import pytest
from click.testing import CliRunner

from leveret_client import exits
from leveret_client.errors import CommandRefused
from leveret_client.main import main
from leveret_client.sealed import sealed_for
from leveret_proto.messages import MAX_SECRET
from leveret_runtime.sealing import KeyPair

BROKER = ["--amqp", "amqp://guest@localhost:1/", "--owner", "~tester"]
VALUE = b"s3cret-value"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "one of --ssh-key"),
        (("--ssh-key", "-", "--pgp-key", "-"), "one of --ssh-key"),
        (("--file", "-"), "--path"),
        (("--ssh-key", "-", "--path", "x"), "--file"),
        (("--pgp-key", "-", "--mode", "600"), "--file"),
        (("--file", "-", "--path", "x", "--mode", "999"), "file mode"),
        (("--file", "-", "--path", "x", "--mode", "1777"), "file mode"),
        (("--ssh-key", "not/there"), "not/there"),
    ],
)
def test_what_makes_no_sense_is_told(arguments: tuple[str, ...], told: str) -> None:
    ran = CliRunner().invoke(main, ["secret", "add", *arguments, *BROKER], input=VALUE)
    assert ran.exit_code == exits.USAGE
    assert told in ran.output and VALUE.decode() not in ran.output


def test_a_value_that_is_too_long_is_not_sent(tmp_path: Path) -> None:
    file = tmp_path / "value"
    file.write_bytes(b"x" * (MAX_SECRET + 1))
    ran = CliRunner().invoke(main, ["secret", "add", "--file", str(file), "--path", "x", *BROKER])
    assert ran.exit_code == exits.USAGE and str(MAX_SECRET) in ran.output


def test_what_is_sent_is_sealed() -> None:
    pair = KeyPair()
    command = sealed_for(pair.public_key, VALUE, "file", "name", "path", 0o600)
    assert pair.open(command.sealed) == VALUE
    assert command.sealed_to == pair.public_key
    assert VALUE not in command.model_dump_json().encode()


GOOD_KEY, SHORT_KEY = KeyPair(bytes(32)).public_key, base64.b64encode(bytes(8)).decode()


@pytest.mark.parametrize(("key", "name"), [(GOOD_KEY, "a\nb"), (SHORT_KEY, "n")])
def test_what_can_not_be_sealed_or_said_is_refused(key: str, name: str) -> None:
    with pytest.raises(CommandRefused) as raised:
        sealed_for(key, VALUE, "file", name, "path", None)
    assert VALUE.decode() not in str(raised.value)


def test_the_largest_value_fits() -> None:
    pair = KeyPair()
    command = sealed_for(pair.public_key, b"x" * MAX_SECRET, "file", None, "path", None)
    assert len(pair.open(command.sealed)) == MAX_SECRET
