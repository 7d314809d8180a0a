"""What a secret must be like: builds.sr.ht's kinds and names, places that make sense, keys that are keys."""

import base64
from typing import Any
from uuid import uuid4

import pytest

from leveret_dispatcher.secret_rules import BadSecret, check_description, checked_value, uuid_of
from leveret_proto.messages import MAX_SECRET, AddSecret

PUBLIC_KEY = base64.b64encode(bytes(32)).decode()
#: Looks like the UUID of a secret.
UUID = "47bab9ee-7ff4-4ad7-bb02-a624eb2af5eb"
SSH = b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNza\n-----END OPENSSH PRIVATE KEY-----\n"
PGP = b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQVY\n-----END PGP PRIVATE KEY BLOCK-----\n"


def secret(kind: str = "file", **fields: Any) -> AddSecret:
    given = {"path": "~/token"} if kind == "file" else {}
    return AddSecret.model_validate({"kind": kind, "sealed_to": PUBLIC_KEY, "sealed": ""} | given | fields)


@pytest.mark.parametrize("name", ["deploy key", "ünïcöde", "x" * 511, None])
def test_names_are_those_a_manifest_can_say(name: str | None) -> None:
    check_description(secret(name=name))


@pytest.mark.parametrize("name", ["abc", "ö" * 256, UUID, UUID.upper()])
def test_a_name_that_a_manifest_can_not_say_or_that_is_a_uuid_is_refused(name: str) -> None:
    with pytest.raises(BadSecret, match="name"):
        check_description(secret(name=name))


@pytest.mark.parametrize("path", ["token", "~/.config/token", "/etc/token", ".netrc", "a/.b/c", "./a", "a..b/c"])
def test_a_file_has_a_path_absolute_or_from_home(path: str) -> None:
    check_description(secret(path=path))


@pytest.mark.parametrize(
    "path", ["../x", "~/a/../../x", "/etc/..", "~root/x", "~/~x", "~//etc/x", "a/", "~/", "/", ".", "a\nb", "a/."]
)
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(BadSecret, match="path"):
        check_description(secret(path=path))


def test_only_a_file_has_a_path_and_a_mode() -> None:
    for fields in ({"path": "x"}, {"mode": 0o600}):
        with pytest.raises(BadSecret, match="only a file"):
            check_description(secret("ssh-key", **fields))
    with pytest.raises(BadSecret, match="needs the path"):
        check_description(secret(path=None))


@pytest.mark.parametrize(
    "value", [SSH, SSH.rstrip(), SSH.replace(b"\n", b"\r\n"), b"\n" + SSH + b"\n\n", SSH.replace(b"\n", b" \n")]
)
def test_an_ssh_key_is_kept_in_the_form_that_ssh_reads(value: bytes) -> None:
    assert checked_value(secret("ssh-key"), value) == SSH


@pytest.mark.parametrize("value", [b"ssh-ed25519 AAAA me", SSH[:-40], b"  ", b"-----BEGIN CERTIFICATE-----\n" + SSH])
def test_what_is_no_ssh_private_key_is_refused(value: bytes) -> None:
    with pytest.raises(BadSecret, match="SSH private key"):
        checked_value(secret("ssh-key"), value)


@pytest.mark.parametrize("value", [PGP, b"\n" + PGP, b"\x95\x03\x00rest", b"\xc5\x58rest"])
def test_a_pgp_key_is_armoured_or_a_secret_key_packet(value: bytes) -> None:
    assert checked_value(secret("pgp-key"), value) == value


@pytest.mark.parametrize("value", [PGP.replace(b"PRIVATE", b"PUBLIC"), b"\x99\x01\x0d", b"\xc6\x58", b"\x15", b"key"])
def test_what_is_no_pgp_private_key_is_refused(value: bytes) -> None:
    with pytest.raises(BadSecret, match="PGP private key"):
        checked_value(secret("pgp-key"), value)


@pytest.mark.parametrize("value", [b"", b"x" * (MAX_SECRET + 1)])
def test_a_value_has_a_size(value: bytes) -> None:
    with pytest.raises(BadSecret, match="value"):
        checked_value(secret(), value)


def test_a_file_is_kept_byte_for_byte() -> None:
    assert checked_value(secret(), b"\r\n \x00\xff") == b"\r\n \x00\xff"


def test_a_uuid_is_found_however_it_is_written() -> None:
    uuid = str(uuid4())
    assert uuid_of(uuid.upper()) == uuid_of(uuid) == uuid
    assert uuid_of(uuid.replace("-", "")) is None  # a name, as a manifest has it
    assert uuid_of("deploy key") is None
