"""What workers offer and jobs require, where the image alone makes the difference."""

from leveret_proto.capability import Capabilities, ImageOffer, Requirement


def wants(image: str) -> Requirement:
    return Requirement(arch="x86_64", image=image)


def offers(*images: str) -> Capabilities:
    return Capabilities(images=tuple(ImageOffer(arch="x86_64", name=image, digest="0") for image in images))
