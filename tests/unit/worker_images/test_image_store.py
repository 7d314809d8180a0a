"""The store: names move on at once, what is used stays, and garbage goes whatever happens beside it."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from leveret_worker.images import ImageError, ImageStore, StoredImage, garbage
from leveret_worker.images.garbage import collect_garbage
from tests.support.probes import ARCH, add_image, remove_image


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


def collected(store: ImageStore) -> list[str]:
    """What goes, by name."""
    return [piece.path.name for piece in collect_garbage(store)]


def objects(store: ImageStore) -> set[str]:
    return {path.name for path in (store.root / "objects").glob("*")}


def test_an_image_that_no_name_stands_for_goes_and_the_named_stays(store: ImageStore) -> None:
    old, new = add_image(store, "a/b", b"old"), add_image(store, "a/b", b"new")
    assert [piece.path.name for piece in collect_garbage(store, dry_run=True)] == [old.digest]
    assert objects(store) == {old.digest, new.digest}
    assert collected(store) == [old.digest]
    assert objects(store) == {new.digest}
    store.verify(new)


def test_an_image_that_is_used_stays_until_its_last_user_has_gone(store: ImageStore) -> None:
    old = add_image(store, "a/b", b"old")
    with store.using(old):
        with store.using(old):
            add_image(store, "a/b", b"new")
            assert collected(store) == []
        assert collected(store) == []
        store.verify(old)
    assert collected(store) == [old.digest]
    with pytest.raises(ImageError, match="a/b"), store.using(old):
        pass


def test_who_waits_for_an_image_that_is_just_being_removed_is_told(store: ImageStore) -> None:
    image = add_image(store, "a/b")
    told = list[str]()

    def use() -> None:
        try:
            with store.using(image):
                told.append("used")
        except ImageError as error:
            told.append(str(error))

    with store.alone_with(image.digest) as alone:
        assert alone
        user = threading.Thread(target=use)
        user.start()
        lock = os.stat(image.directory / "manifest.json").st_ino
        waits = f":{lock} "
        deadline = time.monotonic() + 20
        while not any("->" in line and waits in line for line in Path("/proc/locks").read_text().splitlines()):
            assert time.monotonic() < deadline
        shutil.rmtree(image.directory)
    user.join(20)
    assert told == [f"image a/b: {image.directory} was removed"]


def test_an_image_that_is_just_being_added_is_no_garbage(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[list[str]]()
    point = ImageStore._point

    def look_first(self: ImageStore, *given: str) -> None:
        seen.append(collected(self))
        point(self, *given)

    monkeypatch.setattr(ImageStore, "_point", look_first)
    image = add_image(store, "a/b")
    assert seen == [[]]
    store.verify(image)


def test_a_damaged_image_that_a_name_stands_for_stays(store: ImageStore) -> None:
    image = add_image(store, "a/b")
    (image.directory / "manifest.json").write_text("{}")
    assert store.images() == []
    assert collected(store) == []


def test_a_removal_that_was_killed_is_finished(store: ImageStore) -> None:
    image = add_image(store, "a/b")
    remove_image(store, "a/b")
    (image.directory / "manifest.json").unlink()
    assert collected(store) == [image.digest]
    assert objects(store) == set()


def test_what_a_killed_build_left_goes_but_not_what_one_is_working_on(store: ImageStore) -> None:
    for name in ("a/killed", "a/running"):
        (store.work_directory(name, ARCH) / "tree").mkdir(parents=True)
    with store.building("a/running", ARCH):
        assert collected(store) == [f"a+killed.{ARCH}"]
        assert store.work_directory("a/running", ARCH).is_dir()
    assert collected(store) == [f"a+running.{ARCH}"]


def test_old_initrds_and_temporary_files_go(store: ImageStore) -> None:
    image = add_image(store, "a/b")
    kept, old = store.root / "initrds/new.cpio", store.root / "initrds/old.cpio"
    half, pointer = store.root / "initrds/tmp123", store.root / "names/a/b/tmpx.new"
    (store.root / "initrds").mkdir()
    for path, age in ((kept, 0.0), (old, garbage.INITRD_AGE), (half, garbage.TEMPORARY_AGE), (pointer, 1e6)):
        path.touch()
        os.utime(path, (time.time() - age - 60, time.time() - age - 60))
    assert sorted(collected(store)) == ["old.cpio", "tmp123", "tmpx.new"]
    assert kept.exists()
    assert store.images() == [image]


class Store(RuleBasedStateMachine):
    """Builders, users and collectors in any order."""

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.store = ImageStore(self.folder)
        self.named: dict[str, StoredImage] = {}
        self.used: list[tuple[StoredImage, ExitStack]] = []
        self.count = 0

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            for _, lease in self.used:
                lease.close()
            shutil.rmtree(self.folder)

    @rule(name=st.sampled_from(["a", "b"]))
    def build(self, name: str) -> None:
        self.count += 1
        self.named[name] = add_image(self.store, name, str(self.count).encode())

    @precondition(lambda self: self.named)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.named)))
        del self.named[name]
        remove_image(self.store, name)

    @precondition(lambda self: self.named)
    @rule(data=st.data())
    def use(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.named)))
        lease = ExitStack()
        lease.enter_context(self.store.using(self.store.find(name, ARCH)))
        self.used.append((self.named[name], lease))

    @precondition(lambda self: self.used)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        which = data.draw(st.integers(0, len(self.used) - 1))
        self.used.pop(which)[1].close()

    @precondition(lambda self: objects(self.store) != self._needed())
    @rule()
    def collect(self) -> None:
        collected(self.store)
        assert objects(self.store) == self._needed()

    @invariant()
    def what_is_needed_is_whole(self) -> None:
        for digest in self._needed():
            self.store.verify(self.store.open(digest))

    @invariant()
    def a_name_stands_for_what_was_built_last(self) -> None:
        if hasattr(self, "store"):
            assert {image.manifest.name: image for image in self.store.images()} == self.named

    def _needed(self) -> set[str]:
        if not hasattr(self, "store"):
            return set()
        return {image.digest for image in self.named.values()} | {image.digest for image, _ in self.used}


TestStoreMachine = Store.TestCase
TestStoreMachine.settings = settings(max_examples=30, stateful_step_count=30)


USER = """
import sys, time
from pathlib import Path
from leveret_worker.images import ImageStore
store = ImageStore(Path(sys.argv[1]))
with store.using(store.open(sys.argv[2])):
    print("using", flush=True)
    time.sleep(600)
"""


def test_a_lease_ends_with_its_process(store: ImageStore) -> None:
    image = add_image(store, "a/b")
    remove_image(store, "a/b")
    command = [sys.executable, "-c", USER, str(store.root), image.digest]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as user:
        try:
            assert user.stdout is not None and user.stdout.readline() == "using\n"
            assert collected(store) == []
        finally:
            user.kill()
    assert collected(store) == [image.digest]
