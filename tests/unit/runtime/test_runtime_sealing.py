"""Sealed boxes: only the holder of the key opens them, and what is wrong is said without showing anything."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_runtime.sealing import KeyPair, SealError, seal

PAIR = KeyPair()


@given(st.binary(max_size=4096))
def test_what_is_sealed_is_opened_by_its_pair_alone(value: bytes) -> None:
    sealed = seal(value, PAIR.public_key)
    assert PAIR.open(sealed) == value
    with pytest.raises(SealError):
        KeyPair().open(sealed)


@given(st.binary(min_size=1, max_size=64), st.data())
def test_a_changed_box_is_not_opened(value: bytes, data: st.DataObject) -> None:
    box = bytearray(base64.b64decode(seal(value, PAIR.public_key)))
    at = data.draw(st.integers(0, len(box) - 1))
    # the highest bit of an X25519 key is ignored (RFC 7748, section 5)
    box[at] ^= data.draw(st.sampled_from([1 << bit for bit in range(7)]))
    with pytest.raises(SealError):
        PAIR.open(base64.b64encode(box).decode())


def test_a_seed_always_makes_the_same_pair() -> None:
    first, second = KeyPair(bytes(32)), KeyPair(bytes(32))
    assert second.open(seal(b"value", first.public_key)) == b"value"
    assert KeyPair().public_key != KeyPair().public_key


@pytest.mark.parametrize(
    "public_key",
    ["", "no base64 at all!", base64.b64encode(b"short").decode(), base64.b64encode(bytes(32)).decode(), "ä" * 44],
)
def test_what_is_no_key_can_not_be_sealed_to(public_key: str) -> None:
    with pytest.raises(SealError) as raised:
        seal(b"hidden value", public_key)
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize("sealed", ["", "AAAA", "%%%", base64.b64encode(bytes(48)).decode()])
def test_what_is_no_box_is_not_opened(sealed: str) -> None:
    with pytest.raises(SealError):
        PAIR.open(sealed)
