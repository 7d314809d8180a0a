"""Guests and the executors that make them: what the build sees of either kind of machine."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from leveret_guestapi import GuestClient
from leveret_proto.capability import Capabilities, Requirement, missing
from leveret_proto.messages import Grant


class Withdrawn(Exception):
    """What the grant needs is not offered any more; the text says what. The job is handed back."""


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
    #: How it was started, in one word, for the metrics.
    how: Literal["restored", "booted", "process"]


class Executor(Protocol):
    """Makes guests. One for the worker's whole life."""

    def offer(self) -> Capabilities:
        """What has been proved so far."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be proved and why, for people."""

    async def prove(self, changed: Callable[[], None]) -> None:
        """Keep the offer true: prove what takes longer, now and again; call `changed` when the offer has changed.

        Returns where nothing can change, else runs until cancelled.
        """

    def prove_soon(self) -> None:
        """Have everything proved again now."""

    def guest(self, grant: Grant, folder: Path) -> AbstractAsyncContextManager[Guest]:
        """Start a fresh machine for `grant`, with `folder` (made and removed by the caller) for its files.

        Raises:
            Withdrawn: what the grant needs is not offered any more.
            GuestApiError: it did not answer in time.
        """


def check(needed: Requirement, offered: Capabilities) -> None:
    """A grant may have been on its way when a capability was withdrawn. Raises Withdrawn."""
    lack = missing(needed, offered)
    if lack is not None:
        raise Withdrawn(f"{lack.lack} {lack.value} is not offered any more")
