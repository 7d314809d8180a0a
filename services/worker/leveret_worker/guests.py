"""Guests and the executors that make them: what the build sees of either kind of machine."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from leveret_guestapi import GuestClient
from leveret_proto.capability import Capabilities
from leveret_proto.messages import Grant


class NoSuchImage(Exception):
    """The executor does not have the image any more, or never had it."""


@dataclass(frozen=True)
class Profile:
    """What differs between guests, from the image's data.

    Scripts are for `/bin/sh -eu`, run as root: `install_packages` with the packages as arguments, `add_repository` with
    a name and a value. None: this kind of guest can't.
    """

    user: str | None
    home: str
    preamble: str
    environment: dict[str, str] = field(default_factory=dict)
    install_packages: str | None = None
    add_repository: str | None = None
    version_control: tuple[str, ...] = ("git",)


@dataclass(frozen=True)
class Guest:
    """A machine that answers."""

    api: GuestClient
    profile: Profile
    #: What it is, in words, for the setup log.
    about: str


class Executor(Protocol):
    """Makes guests. One for the worker's whole life."""

    def offer(self) -> Capabilities:
        """What has been proved so far."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be proved and why, for people."""

    async def prove(self, changed: Callable[[], None]) -> None:
        """Prove what takes longer; call `changed` when the offer has changed. Returns when all is proved or refuted."""

    def guest(self, grant: Grant, folder: Path) -> AbstractAsyncContextManager[Guest]:
        """Start a fresh machine for `grant`, with `folder` (made and removed by the caller) for its files.

        Raises:
            NoSuchImage: the image is gone.
            GuestApiError: it did not answer in time.
        """
