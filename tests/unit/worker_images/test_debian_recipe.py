"""Where the Debian recipe takes packages from, with an apt that answers as a host's would."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from leveret_worker.images.model import recipes_directory

Sources = Callable[..., list[str]]

RECIPE = recipes_directory() / "debian/recipe.sh"
HOST = """\
bookworm main http://mirror.example/debian/
bookworm-updates main http://mirror.example/debian/
bookworm-security main http://security.example/debian-security/
bookworm-backports main http://mirror.example/debian/
bookworm contrib http://mirror.example/debian/
nodistro main http://third.example/
cloud-sdk-bookworm main http://fourth.example/
"""


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """Runs `recipe.sh print-sources` on a host with the given index targets (None: not a Debian host)."""

    def run(targets: str | None, **variables: str) -> list[str]:
        tools = tmp_path / "bin"
        tools.mkdir(exist_ok=True)
        for tool in ("awk", "sort", "sh"):
            (tools / tool).unlink(missing_ok=True)
            (tools / tool).symlink_to(f"/usr/bin/{tool}")
        if targets is not None:
            (tools / "apt-get").write_text(f"#!/bin/sh\n[ $1 = indextargets ] || exit 9\necho '{targets}'\n")
            (tools / "apt-get").chmod(0o755)
        environment = {"PATH": str(tools), **variables}
        done = subprocess.run(
            ["/bin/sh", RECIPE, "print-sources"],
            env=environment,
            capture_output=True,
            check=True,
            text=True,
            timeout=20,
        )
        return done.stdout.splitlines()

    return run


def test_the_hosts_own_mirrors_serve_the_images_suite(sources: Sources) -> None:
    assert sources(HOST, SUITE="trixie") == [
        "deb http://mirror.example/debian trixie main",
        "deb http://mirror.example/debian trixie-updates main",
        "deb http://security.example/debian-security trixie-security main",
    ]


def test_a_rolling_suite_has_no_updates(sources: Sources) -> None:
    assert sources(HOST, SUITE="sid") == ["deb http://mirror.example/debian sid main"]


def test_a_given_mirror_is_the_only_one(sources: Sources) -> None:
    assert sources(HOST, SUITE="trixie", MIRROR="http://my.example/d") == ["deb http://my.example/d trixie main"]


@pytest.mark.parametrize("targets", [None, "", "noble main http://other.example/ubuntu/"])
def test_other_hosts_get_the_default(sources: Sources, targets: str | None) -> None:
    assert sources(targets, SUITE="trixie") == []
