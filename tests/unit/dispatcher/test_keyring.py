"""The installation's secrets key: what it locks is bound to its row, and nobody else's key opens it."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from leveret_dispatcher.config import Config
from leveret_dispatcher.keyring import Keyring
from leveret_runtime.sealing import SealError, seal

KEY = base64.b64encode(bytes(range(32))).decode()
OTHER = base64.b64encode(bytes(range(1, 33))).decode()
UUID, OWNER = "c00177dd-e88b-4884-819e-871e1ae6e9f3", "~alice"

values = st.binary(max_size=4096)


@given(values, st.uuids(), st.text(max_size=64).filter(lambda text: text.isprintable()))
def test_a_value_rests_unreadable_and_comes_back(value: bytes, uuid: object, owner: str) -> None:
    locked = Keyring(KEY).lock(value, str(uuid), owner)
    assert len(value) < 4 or value not in locked
    assert Keyring(KEY).unlock(locked, str(uuid), owner) == value


@pytest.mark.parametrize(
    ("uuid", "owner"), [("47bab9ee-7ff4-4ad7-bb02-a624eb2af5eb", OWNER), (UUID, "~mallory"), (UUID, "")]
)
def test_a_row_of_another_secret_or_owner_does_not_open_it(uuid: str, owner: str) -> None:
    locked = Keyring(KEY).lock(b"value", UUID, OWNER)
    with pytest.raises(SealError):
        Keyring(KEY).unlock(locked, uuid, owner)


@given(values, st.data())
def test_a_changed_row_does_not_open(value: bytes, data: st.DataObject) -> None:
    locked = bytearray(Keyring(KEY).lock(value, UUID, OWNER))
    at = data.draw(st.integers(0, len(locked) - 1))
    locked[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SealError):
        Keyring(KEY).unlock(bytes(locked), UUID, OWNER)


@pytest.mark.parametrize("locked", [b"", b"x" * 10, b"x" * 24])
def test_a_cut_row_does_not_open(locked: bytes) -> None:
    with pytest.raises(SealError):
        Keyring(KEY).unlock(locked, UUID, OWNER)


def test_another_key_opens_nothing() -> None:
    ours, theirs = Keyring(KEY), Keyring(OTHER)
    with pytest.raises(SealError):
        theirs.unlock(ours.lock(b"value", UUID, OWNER), UUID, OWNER)
    with pytest.raises(SealError):
        theirs.unseal(seal(b"value", ours.public_key))


def test_every_dispatcher_of_an_installation_opens_what_was_submitted() -> None:
    assert Keyring(KEY + "\n").unseal(seal(b"value", Keyring(KEY).public_key)) == b"value"


def test_the_key_at_rest_is_not_the_one_that_submitters_know() -> None:
    keyring = Keyring(KEY)
    assert base64.b64decode(keyring.public_key) not in keyring.lock(b"", UUID, OWNER)
    assert keyring.public_key != KEY


@pytest.mark.parametrize("key", ["hunter2-hunter2", base64.b64encode(bytes(16)).decode(), ""])
def test_what_is_no_key_is_refused_without_being_shown(key: str) -> None:
    given = {"amqp_url": "amqp://x", "database_url": "postgresql://x", "secrets_key": SecretStr(key)}
    with pytest.raises(ValidationError) as raised:
        Config.model_validate(given)
    told = str(raised.value)
    assert "secrets_key" in told
    assert not key or key not in told
