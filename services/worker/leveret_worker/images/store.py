"""The content-addressed store of guest images: many readers, atomic replacement, no database.

    objects/<digest>/{root.qcow2,kernel,busybox,modules/,manifest.json}   never changed; the digest is manifest.json's
    names/<image>/<architecture>                                  a text file holding the digest the name stands for
    initrds/<digest>.cpio                                         see initrd.py
    work/<image>.<architecture>/                                  a build under way
    locks/<image>.<architecture>                                  held by it

A running build keeps using the object it opened while the name moves on to another. `garbage.py` finds what may go: not
what somebody holds by a lease (`using`), which is a shared lock on the object's manifest and so ends with its process.
"""

import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from leveret_worker.images.errors import ImageError
from leveret_worker.images.model import ArchitectureDescription, ImageDescription, check_name

_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_MANIFEST = 1024 * 1024


class StoredFile(BaseModel):
    """A file of an image, relative to its object's directory."""

    model_config = ConfigDict(frozen=True)
    path: str
    sha256: str
    size: int


class ImageManifest(BaseModel):
    """`manifest.json`: what an object is; its SHA-256 names the object."""

    model_config = ConfigDict(frozen=True)
    format: Literal[2] = 2
    name: str
    architecture: str
    made: datetime
    recipe_digest: str
    description: ImageDescription
    files: list[StoredFile]


@dataclass(frozen=True)
class StoredImage:
    """An image ready to boot. Its files stay as they are for as long as the object is in the store."""

    store: "ImageStore"
    digest: str
    manifest: ImageManifest

    @property
    def directory(self) -> Path:
        return self.store.root / "objects" / self.digest

    @property
    def disk(self) -> Path:
        """The root disk, qcow2, to be used as a backing file only."""
        return self.directory / "root.qcow2"

    @property
    def kernel(self) -> Path:
        return self.directory / "kernel"

    @property
    def busybox(self) -> Path:
        """Statically linked, of the guest's architecture."""
        return self.directory / "busybox"

    @property
    def modules(self) -> list[Path]:
        """Kernel modules in the order of insertion."""
        return sorted((self.directory / "modules").glob("*.ko"))

    @property
    def description(self) -> ImageDescription:
        return self.manifest.description

    @property
    def architecture(self) -> ArchitectureDescription:
        return self.manifest.description.architectures[self.manifest.architecture]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.size for file in self.manifest.files)


@dataclass(frozen=True)
class ImageStore:
    """The store in the directory `root`, which need not exist yet."""

    root: Path

    def find(self, name: str, architecture: str) -> StoredImage:
        """The image that `name`, or one whose alias it is, stands for now.

        Raises:
            ImageError: it was not built for that architecture, or its object is damaged.
        """
        pointer = self._pointer(check_name(name), architecture)
        if not pointer.is_file():
            for image in self.images():
                if image.manifest.architecture == architecture and name in image.description.aliases:
                    return image
            raise ImageError(f"{name} is not in the image store {self.root} for {architecture}: build it first")
        return self._open_pointed(pointer)

    def images(self) -> list[StoredImage]:
        """All images that a name stands for, by name and architecture. Damaged ones are left out; `check` tells."""
        images = []
        for pointer in self.pointers():
            try:
                images.append(self._open_pointed(pointer))
            except ImageError:
                continue
        return images

    def _open_pointed(self, pointer: Path) -> StoredImage:
        """Raises ImageError: the pointer can't be read (it may have gone just now), or its object is damaged."""
        try:
            digest = pointer.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ImageError(f"{pointer} can't be read: {error}") from error
        return self.open(digest)

    def pointers(self) -> list[Path]:
        """The files that tie a name and an architecture to a digest."""
        return sorted(path for path in (self.root / "names").glob("**/*") if path.is_file() and path.suffix != ".new")

    def pointed(self) -> set[str]:
        """The digests that names stand for now, of damaged images too. Raises ImageError where that can't be told."""
        digests = set()
        for pointer in self.pointers():
            try:
                digests.add(pointer.read_bytes().decode("ascii", "replace").strip())
            except FileNotFoundError:
                continue
            except OSError as error:
                raise ImageError(f"{pointer} can't be read: {error}") from error
        return digests

    def open(self, digest: str) -> StoredImage:
        """The object of that digest; its manifest is verified, its big files are not (see `verify`).

        Raises:
            ImageError: it is not there, or not what its digest says.
        """
        if not _DIGEST.fullmatch(digest):
            raise ImageError(f"{digest[:80]!r} is not an image's digest")
        path = self.root / "objects" / digest / "manifest.json"
        try:
            with path.open("rb") as stream:
                content = stream.read(_MAX_MANIFEST)
            manifest = ImageManifest.model_validate_json(content)
        except OSError as error:
            raise ImageError(f"image {digest[:12]}: {error.strerror}: {path}: build it again") from error
        except ValidationError as error:
            raise ImageError(f"image {digest[:12]}: {path} can't be read: build it again") from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise ImageError(f"image {digest[:12]}: {path} was changed: build it again")
        return StoredImage(self, digest, manifest)

    def verify(self, image: StoredImage) -> None:
        """Read every file of `image` and compare it with its digest.

        Raises:
            ImageError: a file is missing or was changed.
        """
        for file in image.manifest.files:
            path = image.directory / file.path
            if not path.is_file():
                raise ImageError(f"image {image.manifest.name}: {path} is missing: build it again")
            if file_digest(path) != file.sha256:
                raise ImageError(f"image {image.manifest.name}: {path} was changed: build it again")

    def add(self, content: Path, manifest: ImageManifest) -> StoredImage:
        """Make the directory `content` an object and let the manifest's name stand for it, in one step for readers.

        Args:
            content: a directory inside the store, moved away by this.
            manifest: what it holds; `files` is filled in here.
        """
        paths = sorted(path for path in content.rglob("*") if path.is_file())
        listed = [
            StoredFile(path=str(path.relative_to(content)), sha256=file_digest(path), size=path.stat().st_size)
            for path in paths
        ]
        text = manifest.model_copy(update={"files": listed}).model_dump_json(indent=2).encode()
        digest = hashlib.sha256(text).hexdigest()
        (content / "manifest.json").write_bytes(text)
        content.chmod(0o755)
        for path in content.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
            _to_disk(path)
        target = self.root / "objects" / digest
        target.parent.mkdir(parents=True, exist_ok=True)
        with (content / "manifest.json").open("rb") as lease:
            fcntl.flock(lease, fcntl.LOCK_SH)  # until a name stands for it
            os.rename(content, target)
            _to_disk(target.parent)
            self._point(manifest.name, manifest.architecture, digest)
        return self.open(digest)

    @contextmanager
    def using(self, image: StoredImage) -> Iterator[None]:
        """Hold a lease on `image`: as long as the context lasts its files stay. Many may hold one at once.

        Raises:
            ImageError: it was removed meanwhile; what its name stands for now is found by `find`.
        """
        path = image.directory / "manifest.json"
        try:
            stream = path.open("rb")
        except OSError as error:
            raise ImageError(f"image {image.manifest.name}: {error.strerror}: {path}") from error
        with stream:
            fcntl.flock(stream, fcntl.LOCK_SH)
            if not path.exists():  # the lock was given by who has just removed it
                raise ImageError(f"image {image.manifest.name}: {image.directory} was removed")
            yield

    @contextmanager
    def alone_with(self, digest: str) -> Iterator[bool]:
        """Whether nobody holds a lease on that object, or is just adding it; if so, nobody gets one in this context."""
        try:
            stream = (self.root / "objects" / digest / "manifest.json").open("rb")
        except FileNotFoundError:  # half removed: nobody can hold it
            yield True
            return
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    @contextmanager
    def building(self, name: str, architecture: str) -> Iterator[None]:
        """Hold the right to build that image: a second builder waits here until the first has done."""
        path = self.root / "locks" / f"{_flat(check_name(name))}.{architecture}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def work_directory(self, name: str, architecture: str) -> Path:
        """Where a build of that image works; whoever holds `building` owns it."""
        return self.root / "work" / f"{_flat(check_name(name))}.{architecture}"

    def abandoned_work(self) -> Iterator[Path]:
        """Work directories of builds that were killed; each is held until the next is asked for."""
        for path in sorted((self.root / "work").glob("*")):
            lock = self.root / "locks" / path.name
            lock.parent.mkdir(parents=True, exist_ok=True)
            with lock.open("wb") as stream:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield path

    def _point(self, name: str, architecture: str, digest: str) -> None:
        pointer = self._pointer(name, architecture)
        pointer.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=pointer.parent, suffix=".new", delete=False) as stream:
            stream.write(digest + "\n")
        os.chmod(stream.name, 0o644)
        os.replace(stream.name, pointer)

    def _pointer(self, name: str, architecture: str) -> Path:
        if not re.fullmatch(r"[a-z0-9_]{1,32}", architecture):
            raise ImageError(f"{architecture!r} is not the name of an architecture, such as x86_64")
        return self.root / "names" / name / architecture


def default_store() -> ImageStore:
    """The store in the user's cache folder (XDG Base Directory Specification)."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(cache) if os.path.isabs(cache) else Path.home() / ".cache"
    return ImageStore(base / "leveret" / "images")


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _to_disk(path: Path) -> None:
    """Have a file or directory written out: after a crash a name must not stand for half an image."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flat(name: str) -> str:
    return name.replace("/", "+")
