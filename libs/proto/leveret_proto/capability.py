"""Capabilities: what a job requires, what a worker offers, and whether the one meets the other.

One pure rule, used by the dispatcher's matching, by `leveret explain` and by tests alike.
"""

from enum import StrEnum
from typing import NamedTuple

from leveret_proto.base import Image, Name, Part, Tag
from leveret_proto.words import escape, join

#: The tag that jobs with secrets require, and that a session carries whose beat names a public key to seal them to.
#: No manifest can ask for it: there, tags have no spaces.
SECRETS_TAG = "sealed secrets"


class Requirement(Part):
    """What a job needs of a worker. `arch` and `image` are canonical names, synonyms already resolved."""

    arch: Name
    image: Image
    kvm: bool = False
    tags: tuple[Tag, ...] = ()

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


class Lack(StrEnum):
    """The first capability, in this order, that keeps a worker from serving a job. The later, the nearer it comes."""

    ARCH = "arch"
    IMAGE = "image"
    KVM = "kvm"
    TAGS = "tags"

    @property
    def nearness(self) -> int:
        """How near a worker that lacks this comes to serving the job; more is nearer."""
        return list(Lack).index(self)


class Missing(NamedTuple):
    """What a worker lacks: the kind and the value asked for."""

    lack: Lack
    value: str


def capability_key(arch: str, image: str, kvm: bool) -> str:
    """Give `<arch>.<image>.<kvm or any>` with its words escaped."""
    return join(escape(arch), escape(image), "kvm" if kvm else "any")


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
