"""`image.yml`: all that differs between guests, as data.

The worker holds no code for any distribution: how to install a package, where home is, what PID 1 is, comes from here.
"""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from leveret_worker.images.errors import ImageError

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}(/[a-z0-9][a-z0-9._-]{0,62}){0,3}")
"""An image's name: lower-case words parted by slashes, such as `debian/trixie`."""

Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.,=-]*$", max_length=120)]
Variable = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$", max_length=60)]
ModuleName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)]
AbsolutePath = Annotated[str, Field(pattern=r"^/[^\x00\n]*$", max_length=255)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ArchitectureDescription(_Part):
    """How one architecture of an image is made and booted."""

    machine: Word
    """QEMU's machine type, such as `q35`."""
    cpu: Word = "max"
    console: Word
    """The kernel's name for the serial console, such as `ttyS0`."""
    variables: dict[Variable, str] = {}
    """Environment for the recipe, beside the image's own."""
    foreign_needs: dict[str, str] = {}
    """Commands the recipe calls beside `needs` on a host of another architecture."""


class GuestDescription(_Part):
    """What the worker must know to run a build in the guest. Scripts are for `/bin/sh -eu`, run as root."""

    init: Annotated[list[str], Field(min_length=1, max_length=32)]
    """The command that becomes PID 1 and ends up as the agent, which the initrd lays at `/run/leveret/agent.py`."""
    user: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]
    home: AbsolutePath
    environment: dict[str, str] = {}
    preamble: str
    """Stands before each task's script."""
    version_control: list[Annotated[str, Field(pattern=r"^[a-z]+$")]] = []
    install_packages: str
    """`$@` are the packages' names."""
    add_repository: str
    """`$1` is the repository's name, `$2` its value in the manifest."""
    power_off: str

    @field_validator("init")
    @classmethod
    def _init_is_absolute(cls, init: list[str]) -> list[str]:
        if not PurePosixPath(init[0]).is_absolute():
            raise ValueError("the first word must be an absolute path in the guest")
        return init


class ImageDescription(_Part):
    """One `image.yml`, with what it extends."""

    description: Annotated[str, Field(max_length=200)]
    untried: Annotated[str, Field(max_length=400)] | None = None
    """Why nobody has built this image yet, where that is so."""
    aliases: list[Annotated[str, Field(pattern=f"^{NAME.pattern}$")]] = []
    recipe: Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]+$", max_length=200)]
    """A POSIX shell script beside or above `image.yml` that writes the root file system as a tar archive to its
    standard output, with a kernel, its modules (`depmod` run) and a busybox inside. It runs as root."""
    needs: dict[str, str] = {}
    """Commands the recipe calls on the host, each with the Debian package that holds it."""
    variables: dict[Variable, str] = {}
    disk_gib: Annotated[int, Field(ge=1, le=1024)] = 20
    architectures: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z0-9_]{1,32}$")], ArchitectureDescription], Field(min_length=1)
    ]
    kernel: Annotated[str, Field(pattern=r"^[^/\x00][^\x00]*$")]
    """A glob in the root file system that matches exactly one file."""
    busybox: Annotated[str, Field(pattern=r"^[^/\x00][^\x00]*$")]
    """A glob as well: a statically linked busybox of the guest's architecture, for the initrd."""
    modules: list[ModuleName] = []
    """Kernel modules needed to reach the root disk and the agent's port; their dependencies are found."""
    guest: GuestDescription


def parse_image(data: Mapping[str, Any], where: str) -> ImageDescription:
    """Make a description of what an `image.yml` holds, with what it extends merged in.

    Args:
        data: see `parse_mapping` and `merged`.
        where: what to call the file in errors.

    Raises:
        ImageError: not such a description; every fault is named with its path.
    """
    try:
        return ImageDescription.model_validate(data)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc'])) or 'file'}: {fault['msg']}" for fault in error.errors()]
        raise ImageError(f"{where}: " + "; ".join(faults)) from error


def parse_mapping(text: str, where: str) -> dict[str, Any]:
    """The YAML mapping in `text`. Raises ImageError where it is none; `where` is what to call the file."""
    try:
        data: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ImageError(f"{where}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise ImageError(f"{where}: must be a mapping, such as `description: Debian 13`")
    return data


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `base`: mappings are merged, anything else is replaced."""
    both = {
        key: merged(base[key], value)
        for key, value in over.items()
        if isinstance(value, dict) and isinstance(base.get(key), dict)
    }
    return {**base, **over, **both}


def check_name(name: str) -> str:
    """Give back an image's name as it is.

    Raises:
        ImageError: it is none (it would reach outside the store's or the recipes' directory, for one).
    """
    if not NAME.fullmatch(name):
        raise ImageError(f"{name!r} is not an image's name: write lower-case words parted by slashes, as debian/trixie")
    return name


def recipes_directory() -> Path:
    """Where the images' descriptions lie: beside the sources in a checkout, else in the installed wheel."""
    above = Path(__file__).resolve().parents
    for candidate in (above[4] / "deploy" / "images", above[2] / "leveret_deploy" / "images"):
        if candidate.is_dir():
            return candidate
    raise ImageError("the image recipes are missing: they come with the distribution, under leveret_deploy/images")
