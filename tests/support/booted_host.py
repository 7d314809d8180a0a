"""A Debian host in a container, with a real systemd as its process 1 and a network of its own that leads nowhere.

The root file system is made once by mmdebstrap and kept in the user's cache folder; a host runs on an overlay of it.
"""

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from leveret_client.endpoint import cache_folder

PACKAGES = (
    "systemd-sysv,dbus,procps,python3,python3-venv,ca-certificates,rabbitmq-server,postgresql,"
    "qemu-system-x86,qemu-utils,bubblewrap,passt,nftables,iproute2"
)
#: Seconds.
MAKE_LIMIT = 1800
BOOT_LIMIT = 120.0
STOP_LIMIT = 30.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HOSTS = "127.0.0.1 localhost mill\n::1 localhost\n"
#: pasta wants a host with a default route. Where it leads nobody asks.
_NETWORK = """
ip link set lo up
ip link add out type veth peer name nowhere
ip link set nowhere up
ip address add 198.18.0.2/24 dev out
ip link set out up
ip route add default via 198.18.0.1
mount -o remount,bind,rw /proc/sys
chmod 0666 /dev/net/tun
"""


def missing() -> str | None:
    """Give why no host can be booted here, if so."""
    if os.geteuid() != 0:
        return "needs root"
    for program, package in {"systemd-nspawn": "systemd-container", "mmdebstrap": "mmdebstrap"}.items():
        if shutil.which(program) is None:
            return f"{program} is not installed (package {package})"
    return None


def debian_root(suite: str) -> Path:
    """The root file system of a Debian `suite` with all that Leveret's hosts need, made where there is none yet."""
    digest = hashlib.sha256(f"{suite} {PACKAGES}".encode()).hexdigest()[:12]
    made = cache_folder() / "test-roots" / f"{suite}-{digest}"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        fresh = made.with_name(f"{made.name}.{os.getpid()}")
        options = ["--mode=root", "--variant=minbase", "--dpkgopt=force-unsafe-io", f"--include={PACKAGES}"]
        options += [f"--dpkgopt=path-exclude=/usr/share/{kind}/*" for kind in ("man", "doc", "locale")]
        recipe = Path(__file__).parents[2] / "deploy" / "images" / "debian" / "recipe.sh"
        sources = subprocess.run(
            ["sh", recipe, "print-sources"],
            env={**os.environ, "SUITE": suite}, capture_output=True, text=True, check=True, timeout=60,
        ).stdout  # fmt: skip
        # A mirror may lag behind.
        command = ["mmdebstrap", *options, '--aptopt=Acquire::Check-Valid-Until "false"', suite, str(fresh)]
        subprocess.run([*command, *([sources] if sources else [])], check=True, timeout=MAKE_LIMIT, capture_output=True)
        fresh.rename(made)
    return made


@dataclass(frozen=True)
class BootedHost:
    """A running host. `root` is its file system as seen from here."""

    root: Path
    _leader: int

    def run(self, *words: str, check: bool = True, limit: float = 60.0, **environment: str) -> str:
        """Run a command there and give what it says. Raises CalledProcessError, TimeoutExpired."""
        done = subprocess.run(
            ["nsenter", f"--target={self._leader}", "--all", "--", "env", "-i", f"PATH={_PATH}", "LANG=C.UTF-8",
             "HOME=/root", *(f"{name}={value}" for name, value in environment.items()), *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=limit,
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"{' '.join(words)}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def shell(self, script: str, *, limit: float = 60.0, **environment: str) -> str:
        """Run a script of bash there; any command that fails fails it."""
        return self.run("bash", "-euo", "pipefail", "-c", script, limit=limit, **environment)

    def put(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def show(self, unit: str, setting: str) -> str:
        """What systemd knows of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={setting}", unit).strip()

    def until(self, unit: str, setting: str, wanted: str, limit: float = 60.0) -> str:
        """Wait until `wanted` is in what systemd knows of a unit, which tells nobody when that changes."""
        until = time.monotonic() + limit
        while wanted not in (found := self.show(unit, setting)):
            assert time.monotonic() < until, f"{unit}: {setting} is {found!r}\n{self.journal(unit)}"
            time.sleep(0.1)
        return found

    def journal(self, unit: str, *fields: str) -> str:
        """The messages of a unit."""
        return self.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}", *fields)


@contextmanager
def booted_host(suite: str, folder: Path) -> Iterator[BootedHost]:
    """A host for the length of the block; its changes lie in `folder`."""
    lower, root = debian_root(suite), folder / "root"
    for name in ("upper", "work", "root"):
        (folder / name).mkdir()
    options = f"lowerdir={lower},upperdir={folder / 'upper'},workdir={folder / 'work'}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, root], check=True, timeout=30)
    try:
        (root / "etc/hosts").write_text(_HOSTS)
        (root / "etc/machine-id").write_text("")
        with _booted(root, folder / "console.log") as host:
            host.shell(_NETWORK)
            yield host
    finally:
        subprocess.run(["umount", root], check=True, timeout=30)


@contextmanager
def _booted(root: Path, console: Path) -> Iterator[BootedHost]:
    # A worker's machines get a /proc of their own, which the kernel allows only where an uncovered one is seen.
    command = ["systemd-nspawn", "--boot", "--register=no", "--keep-unit", "--private-network", "--link-journal=no",
               "--console=pipe", "--resolv-conf=off", "--bind=/proc:/run/host/full-proc:norbind",
               f"--directory={root}", "--hostname=mill"]  # fmt: skip
    # The last word is for systemd itself: without it Debian 13's refuses to start where this host has control groups
    # of version 1.
    with console.open("wb") as output:
        container = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", "--", *command, "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
        try:
            host = BootedHost(root, _leader(container, console))
            _until_up(host, console)
            yield host
            host.run("systemctl", "poweroff", check=False)
            with suppress(subprocess.TimeoutExpired):
                container.wait(STOP_LIMIT)
        finally:
            container.kill()  # and with it, by the kernel, its process 1
            container.wait(STOP_LIMIT)


def _leader(container: subprocess.Popen[bytes], console: Path) -> int:
    """The container's process 1, by its number here."""
    until = time.monotonic() + BOOT_LIMIT
    while time.monotonic() < until and container.poll() is None:
        for line in Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text().split():
            if Path(f"/proc/{line}/comm").read_text().strip() == "systemd":
                return int(line)
        time.sleep(0.1)
    raise AssertionError(f"the container did not start: {console.read_text(errors='replace')[-2000:]}")


def _until_up(host: BootedHost, console: Path) -> None:
    until = time.monotonic() + BOOT_LIMIT
    while host.run("systemctl", "is-system-running", check=False).strip() not in ("running", "degraded"):
        assert time.monotonic() < until, f"it does not boot: {console.read_text(errors='replace')[-2000:]}"
        time.sleep(0.2)
