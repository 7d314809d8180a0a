"""Capabilities: what a job requires, what a worker offers, and whether the one meets the other.

One pure rule, used by the dispatcher's matching, by `leveret explain` and by tests alike.
"""

from enum import StrEnum
from typing import NamedTuple

from pydantic import Field

from leveret_proto.base import Image, Name, Part, Tag
from leveret_proto.manifest import Manifest
from leveret_proto.words import escape, join

MIB = 1024 * 1024
_MOST = 2**30

#: The tag that jobs with secrets require, and that a session carries whose beat names a public key to seal them to.
#: No manifest can ask for it: there, tags have no spaces.
SECRETS_TAG = "sealed secrets"


class Requirement(Part):
    """What a job needs of a worker. `arch` and `image` are canonical names, synonyms already resolved."""

    arch: Name
    image: Image
    kvm: bool = False
    tags: tuple[Tag, ...] = ()
    #: Memory and virtual processors of the machine. 0: what is usual where it runs.
    memory_mib: int = Field(0, ge=0, le=_MOST)
    cpus: int = Field(0, ge=0, le=_MOST)

    @property
    def key(self) -> str:
        """The capability key `<arch>.<image>.<kvm or any>`: routing key of `leveret.jobs` and head of a grant's."""
        return capability_key(self.arch, self.image, self.kvm)


class ImageOffer(Part):
    """An image that lies in the worker's store and whose emulator starts. `digest` is the store's, in hex."""

    arch: Name
    name: Image
    digest: str


class Capabilities(Part):
    """What a worker has proved that it can serve."""

    images: tuple[ImageOffer, ...] = ()
    #: Architectures for which a guest was really booted under KVM.
    kvm: tuple[Name, ...] = ()
    tags: tuple[Tag, ...] = ()
    #: The most memory and virtual processors that a job may ask for. 0: it may not ask.
    memory_mib: int = Field(0, ge=0, le=_MOST)
    cpus: int = Field(0, ge=0, le=_MOST)


class Lack(StrEnum):
    """The first capability, in this order, that keeps a worker from serving a job. The later, the nearer it comes."""

    ARCH = "arch"
    IMAGE = "image"
    KVM = "kvm"
    MEMORY = "memory"
    CPUS = "cpus"
    TAGS = "tags"

    @property
    def nearness(self) -> int:
        """How near a worker that lacks this comes to serving the job; more is nearer."""
        return list(Lack).index(self)


class Missing(NamedTuple):
    """What a worker lacks: the kind and the value asked for."""

    lack: Lack
    value: str


def requirement(manifest: Manifest, arch: str, image: str) -> Requirement:
    """Give what `manifest` needs of a worker; `arch` and `image` are what its own words stand for."""
    own = manifest.leveret
    return Requirement(
        arch=arch,
        image=image,
        kvm=own.requires.kvm,
        tags=own.requires.tags,
        memory_mib=(own.memory or 0) // MIB,
        cpus=own.cpus or 0,
    )


def capability_key(arch: str, image: str, kvm: bool) -> str:
    """Give `<arch>.<image>.<kvm or any>` with its words escaped."""
    return join(escape(arch), escape(image), "kvm" if kvm else "any")


def size(mib: int) -> str:
    """Give a size in words as a manifest may have it: `512MiB`, `2GiB`."""
    return f"{mib // 1024}GiB" if mib % 1024 == 0 else f"{mib}MiB"


def missing(requirement: Requirement, offered: Capabilities) -> Missing | None:
    """Say what `offered` lacks for `requirement`, or None where it can serve it.

    A worker with KVM also serves jobs that don't ask for it.
    """
    if all(image.arch != requirement.arch for image in offered.images):
        return Missing(Lack.ARCH, requirement.arch)
    if all((image.arch, image.name) != (requirement.arch, requirement.image) for image in offered.images):
        return Missing(Lack.IMAGE, requirement.image)
    if requirement.kvm and requirement.arch not in offered.kvm:
        return Missing(Lack.KVM, requirement.arch)
    if requirement.memory_mib > offered.memory_mib:
        return Missing(Lack.MEMORY, size(requirement.memory_mib))
    if requirement.cpus > offered.cpus:
        return Missing(Lack.CPUS, str(requirement.cpus))
    for tag in requirement.tags:
        if tag not in offered.tags:
            return Missing(Lack.TAGS, tag)
    return None


def serves(offered: Capabilities, requirement: Requirement) -> bool:
    """Whether a worker that offers `offered` can serve `requirement`."""
    return missing(requirement, offered) is None


def offered_keys(offered: Capabilities) -> frozenset[str]:
    """Give every capability key that `offered` serves: what a session binds on `leveret.work`."""
    keys = set()
    for image in offered.images:
        keys.add(capability_key(image.arch, image.name, kvm=False))
        if image.arch in offered.kvm:
            keys.add(capability_key(image.arch, image.name, kvm=True))
    return frozenset(keys)
