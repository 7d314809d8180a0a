"""What a build fetches from outside, made by the test: a signed Debian repository, git with a submodule, Mercurial.

All of it is served over HTTP from one folder on the loopback, which a guest with the network `full` reaches as
`GUEST_SEES`.
"""

import hashlib
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

#: This host's loopback, as a guest sees it.
GUEST_SEES = "10.0.2.2"
_WHO = {
    "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@t",
    "HGUSER": "t", "HGRCPATH": "", "GIT_CONFIG_GLOBAL": "/dev/null",
}  # fmt: skip


def _run(*words: str | Path, cwd: Path | None = None) -> str:
    environment = {**os.environ, **_WHO}
    done = subprocess.run(words, cwd=cwd, env=environment, check=True, timeout=60, stdout=subprocess.PIPE, text=True)
    return done.stdout


@dataclass(frozen=True)
class Origins:
    """A folder that is served. `url` is what a guest sees."""

    folder: Path
    url: str

    def git(self, name: str, files: dict[str, str], submodule: str | None = None) -> None:
        """A repository with `files` on `main`, and `submodule` (another one here) in the folder of its name.

        Its branch `feature` has one file more, of that name.
        """
        work, bare = self.folder / f"{name}.work", self.folder / f"{name}.git"
        _run("git", "init", "-q", "-b", "main", work)
        _fill(work, files)
        if submodule is not None:
            allow = ("-c", "protocol.file.allow=always")
            _run("git", *allow, "submodule", "add", "-q", self.folder / f"{submodule}.git", submodule, cwd=work)
            _run("git", "config", "-f", ".gitmodules", f"submodule.{submodule}.url", f"../{submodule}.git", cwd=work)
        _run("git", "add", ".", cwd=work)
        _run("git", "commit", "-qm", "main", cwd=work)
        _run("git", "checkout", "-qb", "feature", cwd=work)
        _fill(work, {"feature": "on the branch\n"})
        _run("git", "add", ".", cwd=work)
        _run("git", "commit", "-qm", "feature", cwd=work)
        _run("git", "checkout", "-q", "main", cwd=work)
        _run("git", "clone", "-q", "--bare", work, bare)
        _run("git", "update-server-info", cwd=bare)

    def hg(self, name: str, files: dict[str, str]) -> None:
        """A repository whose commit tagged `v1` has `files`, and whose tip has no file at all but its tags."""
        work = self.folder / name
        _run("hg", "init", work)
        _fill(work, files)
        _run("hg", "commit", "-qAm", "one", cwd=work)
        _run("hg", "tag", "v1", cwd=work)
        _run("hg", "remove", *files, cwd=work)
        _run("hg", "commit", "-qm", "two", cwd=work)

    def debian(self, suite: str, package: str, files: dict[str, str], gpg_home: Path) -> str:
        """A signed repository with one package. Gives the manifest's line for it. `gpg_home`: a short path."""
        root = self.folder / "debian"
        index = root / "dists" / suite / "main" / "binary-amd64"
        index.mkdir(parents=True)
        fields = {
            "Package": package,
            "Version": "1.0",
            "Architecture": "all",
            "Maintainer": "t <t@t>",
            "Description": "a test",
        }
        tree = self.folder / f"{package}.tree"
        _fill(tree, {"DEBIAN/control": _stanza(fields)} | files)
        for name in files:
            (tree / name).chmod(0o755)
        archive = root / f"{package}.deb"
        _run("dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, archive)
        content = archive.read_bytes()
        listed = {"Filename": archive.name, "Size": len(content), "SHA256": hashlib.sha256(content).hexdigest()}
        (index / "Packages").write_text(_stanza(fields | listed))
        _release(root / "dists" / suite, suite)
        (self.folder / "key.asc").write_text(_sign(root / "dists" / suite, gpg_home))
        return f"{self.url}/debian {suite} main {self.url}/key.asc"


def _fill(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def _stanza(fields: dict[str, Any]) -> str:
    return "".join(f"{name}: {value}\n" for name, value in fields.items())


def _release(folder: Path, suite: str) -> None:
    index = "main/binary-amd64/Packages"
    content = (folder / index).read_bytes()
    fields = {
        "Suite": suite, "Codename": suite, "Architectures": "amd64", "Components": "main",
        "Date": datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S UTC"),
        "SHA256": f"\n {hashlib.sha256(content).hexdigest()} {len(content)} {index}",
    }  # fmt: skip
    (folder / "Release").write_text(_stanza(fields))


def _sign(folder: Path, gpg_home: Path) -> str:
    """Sign a Release with a new key, which is given."""
    gpg_home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(gpg_home), "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
    try:
        _run(*gpg, "--quick-generate-key", "archive@example.org", "ed25519")
        _run(*gpg, "--clearsign", "--output", folder / "InRelease", folder / "Release")
        return _run(*gpg, "--export", "--armor")
    finally:
        _run("gpgconf", "--homedir", gpg_home, "--kill", "all")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[Origins]:
    """Serve `folder` for the time of the block."""
    folder.mkdir(parents=True, exist_ok=True)

    def handler(*given: Any) -> _Quiet:
        return _Quiet(*given, directory=str(folder))

    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Origins(folder, f"http://{GUEST_SEES}:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()
