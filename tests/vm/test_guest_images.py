"""What a build finds in a guest of each image: its user, its tools, its package manager."""

import asyncio
import contextlib
import shutil
import subprocess
from pathlib import Path

import pytest

from leveret_guestapi import AgentGone, GuestClient
from leveret_worker.images import StoredImage
from tests.support.guest_images import booted, stored_image

# Making an image of a foreign architecture takes a quarter of an hour where it is not there yet.
pytestmark = [pytest.mark.vm, pytest.mark.timeout(2400)]

ENVIRONMENT = {"LANG": "C.UTF-8"}
#: Seconds a script in a guest may take.
LIMIT = 300.0
#: Run as root: a signed repository with one package, served over HTTP to this guest alone.
REPOSITORY = r"""
set -eu
arch=$(dpkg --print-architecture)
mkdir -p /srv/tool/DEBIAN /srv/tool/usr/bin "/srv/dists/test/main/binary-$arch"
cd /srv
printf '%s\n' 'Package: leveret-tool' 'Version: 1' 'Architecture: all' 'Maintainer: t <t@t>' 'Description: a tool' \
  >tool/DEBIAN/control
printf '#!/bin/sh\necho it is there\n' >tool/usr/bin/leveret-tool
chmod 755 tool/usr/bin/leveret-tool
dpkg-deb -b tool tool.deb
packages=main/binary-$arch/Packages
dpkg-scanpackages --multiversion . >"dists/test/$packages"
cd dists/test
printf 'Suite: test\nCodename: test\nComponents: main\nArchitectures: %s\nDate: %s\nSHA256:\n %s %s %s\n' "$arch" \
  "$(date -Ru)" "$(sha256sum <$packages | cut -d ' ' -f 1)" "$(stat -c %s $packages)" "$packages" >Release
gpg --batch --passphrase '' --quick-gen-key packager@example.org ed25519 sign
gpg --batch --clearsign -o InRelease Release
gpg --batch --armor --export >/srv/key.asc
cd /srv
python3 -m http.server --bind 127.0.0.1 8080 >/dev/null 2>&1 &
until curl -sf http://127.0.0.1:8080/key.asc >/dev/null; do :; done
"""


async def said(guest: GuestClient, script: str, user: str | None = "build") -> list[str]:
    """The lines that a script prints."""
    done = await guest.run(script, env=ENVIRONMENT, user=user, time_limit=LIMIT)
    assert done.status.success, (script, done.stdout, done.stderr)
    return done.stdout.decode().splitlines()


async def run_script(guest: GuestClient, script: str, *arguments: str) -> None:
    """Run one of the image's scripts as the worker does."""
    done = await guest.run(["/bin/sh", "-euc", script, "script", *arguments], env=ENVIRONMENT, time_limit=LIMIT)
    assert done.status.success, (done.stdout, done.stderr)


def runs_foreign_programs(architecture: str) -> bool:
    """Whether this host runs programs of that Debian architecture."""
    return (
        shutil.which("arch-test") is not None
        and subprocess.run(["arch-test", architecture], capture_output=True, timeout=20).returncode == 0
    )


def image_for(name: str, architecture: str) -> StoredImage:
    if shutil.which(f"qemu-system-{architecture}") is None:
        pytest.skip(f"qemu-system-{architecture} is not installed")
    if (name, architecture) == ("debian/trixie", "aarch64") and not runs_foreign_programs("arm64"):
        pytest.skip("making this image needs qemu-user-static, binfmt-support and arch-test, and binfmt_misc mounted")
    return stored_image(name, architecture)


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("test/minimal", "x86_64"),
        ("test/minimal", "aarch64"),
        pytest.param("debian/trixie", "x86_64", marks=pytest.mark.slow),
        pytest.param("debian/bookworm", "x86_64", marks=pytest.mark.slow),
        pytest.param("debian/sid", "x86_64", marks=pytest.mark.slow),
        pytest.param("debian/trixie", "aarch64", marks=pytest.mark.slow),
    ],
)
async def test_a_guest_has_what_builds_expect(name: str, architecture: str, tmp_path: Path) -> None:
    image = image_for(name, architecture)
    about = image.description.guest
    async with booted(image, tmp_path) as (machine, guest):
        who = "uname -m; id -un; id -u; pwd; echo $HOME; sudo -n id -un; bash -c 'echo $((6*7))'"
        assert await said(guest, who) == [architecture, about.user, "1000", about.home, about.home, "root", "42"]
        assert await said(guest, "python3 -c 'import json, ssl, subprocess; print(json.dumps([1]))'") == ["[1]"]
        commit = "git init -q x && cd x && git commit -q --allow-empty -m m && git log --format=%an"
        assert await said(guest, commit) == ["build"]
        if name.startswith("debian/"):
            await check_debian(image, guest)
        async with asyncio.timeout(LIMIT):
            # a machine may be off before its agent has said that the command runs
            with contextlib.suppress(AgentGone):
                async with guest.exec(["/bin/sh", "-euc", about.power_off]):
                    await machine.wait()
            assert await machine.wait() == 0


async def check_debian(image: StoredImage, guest: GuestClient) -> None:
    """The rest of what a Debian image has; then a package from a repository that is added over HTTP, with its key."""
    about = image.description.guest
    assert "hg" in about.version_control
    assert await said(guest, "hg init y && hg -R y log; cc --version >/dev/null; make --version >/dev/null") == []
    assert await said(guest, "locale charmap; test -s /etc/ssl/certs/ca-certificates.crt") == ["UTF-8"]
    await said(guest, REPOSITORY, user=None)
    await run_script(
        guest, about.add_repository, "my tools", "http://127.0.0.1:8080 test main http://127.0.0.1:8080/key.asc"
    )
    await run_script(guest, about.install_packages, "leveret-tool")
    assert await said(guest, "leveret-tool") == ["it is there"]
