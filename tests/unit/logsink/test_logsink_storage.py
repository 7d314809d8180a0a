"""Files of streams: written by offset, read back, never outside of the root."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_logsink.chunks import StreamKey
from leveret_logsink.storage import Storage, StorageAway, file_name

LOG = StreamKey("log", 12345, 2, "w", "build")


@given(st.text(min_size=1, max_size=128))
def test_no_text_leaves_its_folder(text: str) -> None:
    try:
        name = file_name(text)
    except UnicodeEncodeError:  # half a surrogate pair: chunks.py lets none in
        return
    assert "/" not in name
    assert "." not in name
    assert 0 < len(name) <= 200


@given(st.lists(st.text("a./~%é", min_size=1, max_size=128), min_size=2, max_size=2, unique=True))
def test_different_texts_have_different_files(texts: list[str]) -> None:
    assert file_name(texts[0]) != file_name(texts[1])


def test_streams_have_files_of_their_own(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    others = [
        LOG._replace(attempt=1), LOG._replace(worker="v"), LOG._replace(label="check"), LOG._replace(job=1),
        StreamKey("artifact", 12345, 2, "w", "0"), StreamKey("log", 12345, 2, "w", "artifacts"),
    ]  # fmt: skip
    assert len({storage.path(key) for key in (LOG, *others)}) == 7
    assert storage.path(LOG) == tmp_path / "12/12345/2/w/build.log"
    assert storage.path(others[4]) == tmp_path / "12/12345/2/w/artifacts/0"


def test_pieces_come_back(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.write({LOG: [(6, memoryview(b"world\nend")), (0, memoryview(b"hello\n"))]})
    assert storage.read(LOG, 0, 100) == b"hello\nworld\nend"
    assert storage.read(LOG, 6, 5) == b"world"
    assert storage.read(LOG._replace(job=1), 0, 1) == b""


@pytest.mark.parametrize(("body", "lines"), [(b"", 0), (b"a", 1), (b"a\n", 1), (b"a\nb", 2), (b"\n\n", 2)])
def test_digest(tmp_path: Path, body: bytes, lines: int) -> None:
    storage = Storage(tmp_path)
    storage.write({LOG: [(0, memoryview(body + b"more"))]})
    assert storage.digest(LOG, len(body)) == (hashlib.sha256(body).hexdigest(), lines)


def test_storage_that_fails_is_away(tmp_path: Path) -> None:
    (tmp_path / "12").write_text("not a folder")
    with pytest.raises(StorageAway):
        Storage(tmp_path).write({LOG: [(0, memoryview(b"x"))]})


def test_a_link_planted_in_the_storage_is_not_followed(tmp_path: Path) -> None:
    storage, outside = Storage(tmp_path / "root"), tmp_path / "outside"
    outside.write_text("untouched")
    storage.path(LOG).parent.mkdir(parents=True)
    storage.path(LOG).symlink_to(outside)
    with pytest.raises(StorageAway):
        storage.write({LOG: [(0, memoryview(b"x"))]})
    assert outside.read_text() == "untouched"
