"""Leveret on a host of its own, as docs/operating.md has it: installed from the wheel, run by systemd, taken away.

The host is a container with a real systemd, RabbitMQ, PostgreSQL and QEMU. One host serves all tests of a Debian
suite, in this file's order: the last one takes Leveret away.
"""

import json
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from leveret_embedded import provisioning
from leveret_proto.definitions import definitions
from leveret_proto.permissions import SERVICES, service, submitter, worker
from leveret_runtime.rabbit_password import password_hash
from tests.support.booted_host import BootedHost, booted_host, debian_root, missing
from tests.support.guest_images import stored_image

ROOT = Path(__file__).parents[2]
IMAGE = "test/minimal"
WORKER = "mill-1"
UNITS = tuple(f"leveret-{name}" for name in ("logsink", "notifier", "dispatcher", "intake", f"worker@{WORKER}"))
PASSWORD = "correct-horse"
#: Seconds; the first job waits for its image's template.
JOB_LIMIT = 240.0
AMQP = f"amqp://{{}}:{PASSWORD}@127.0.0.1:5672/leveret"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.image(IMAGE),
    pytest.mark.timeout(1800),
    pytest.mark.skipif(missing() is not None, reason=f"no host can be booted here: {missing()}"),
]


@dataclass(frozen=True)
class Mill:
    """The host, with Leveret installed and configured, and all its services started."""

    host: BootedHost
    wheel: str

    def leveret(self, script: str, limit: float = 60.0) -> str:
        """Run a script of the client's commands, as a submitter's account."""
        return self.host.shell(script, limit=limit, LEVERET_AMQP_URL=AMQP.format("forge"), LEVERET_OWNER="~ada")

    def submit(self, script: str) -> int:
        """Submit a build of one task and give the job's number."""
        self.host.put("/root/build.yml", json.dumps({"image": IMAGE, "tasks": [{"main": script}]}))
        said = self.leveret("leveret submit --json /root/build.yml")
        found = re.search(r'"job": ?(\d+)', said)
        assert found is not None, said
        return int(found[1])

    def begin(self, script: str) -> int:
        """Submit a build, wait until its machine is being made or runs, and give the job's number."""
        job = self.submit(script)
        self.host.until(f"leveret-worker@{WORKER}", "StatusText", f"jobs {job}", JOB_LIMIT)
        return job

    def succeeded(self, job: int) -> dict[str, Any]:
        """Wait for a job's success, and give the job as `leveret show` has it."""
        until = time.monotonic() + JOB_LIMIT
        while (shown := json.loads(self.leveret(f"leveret show --json {job}")))["status"] != "success":
            assert shown["status"] in ("pending", "queued", "running") and time.monotonic() < until, shown
            time.sleep(0.5)
        return dict(shown)


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def mill(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mill]:
    folder = tmp_path_factory.mktemp("mill")
    root = debian_root(request.param)
    with booted_host(request.param, folder) as host:
        wheel = _wheels(host.root / "root" / "wheels", root)
        _servers(host)
        _install(host, wheel)
        _configure(host)
        host.run("systemctl", "enable", "--now", *UNITS, limit=120)
        yield Mill(host, wheel)


def _wheels(folder: Path, root: Path) -> str:
    """Fill `folder` with the wheel and all it needs, for the Python of `root`; give the wheel's path there."""
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("leveret-*.whl")
    (python,) = (root / "usr/bin").glob("python3.[0-9][0-9]")
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), "--only-binary=:all:",
         f"--python-version={python.name.removeprefix('python')}", f"leveret[up] @ file://{wheel}"],
        check=True, capture_output=True, timeout=600,
    )  # fmt: skip
    shutil.copy(ROOT / "deploy" / "install.sh", folder.parent)
    return f"/root/wheels/{wheel.name}"


def _servers(host: BootedHost) -> None:
    """Give the broker its shape and accounts, and the database its roles."""
    accounts = {str(name): service(name) for name in SERVICES}
    accounts |= {WORKER: worker(WORKER), "forge": submitter(("~ada",))}
    users = {name: (password_hash(PASSWORD), granted) for name, granted in accounts.items()}
    host.put("/srv/definitions.json", json.dumps(definitions("leveret", users)))
    host.run("rabbitmqctl", "--quiet", "import_definitions", "/srv/definitions.json")
    statements = provisioning.create_database("leveret")
    for name in SERVICES:
        statements += [provisioning.create_role(name), provisioning.set_password(name, PASSWORD)]
        statements.append(provisioning.admit(name, "leveret"))
    host.put("/srv/leveret.sql", ";\n".join(statements) + ";\n")
    host.run("runuser", "-u", "postgres", "--", "psql", "--set=ON_ERROR_STOP=1", "--file=/srv/leveret.sql")


def _install(host: BootedHost, wheel: str, *services: str) -> str:
    return host.run(
        "/root/install.sh", "install", wheel, *(unit.removeprefix("leveret-") for unit in services or UNITS),
        limit=300, PIP_NO_INDEX="1", PIP_FIND_LINKS="/root/wheels",
    )  # fmt: skip


def _configure(host: BootedHost) -> None:
    credentials = "/etc/leveret/credentials"
    for name in SERVICES:
        host.put(f"{credentials}/{name}/amqp_url", AMQP.format(name) + "\n", 0o600)
        dsn = f"postgresql://{name}:{PASSWORD}@127.0.0.1/leveret\n"
        host.put(f"{credentials}/{name}/database_url", dsn, 0o600)
    host.put(f"{credentials}/worker@{WORKER}/amqp_url", AMQP.format(WORKER) + "\n", 0o600)
    # Where this machine has control groups of version 1, a container's worker is given none.
    with (host.root / "etc/leveret/worker.yaml").open("a") as sample:
        sample.write("slots: 2\nisolation: try\n")
    # Of the container: see `booted_host`. A mount that the unit sees read-only lets no machine have a /proc.
    host.put("/etc/systemd/system/leveret-worker@.service.d/container.conf",
             "[Service]\nReadWritePaths=/run/host/full-proc\n")  # fmt: skip
    _copy_image(host.root / "var/lib/leveret-worker/images")
    host.run("chown", "-R", "leveret-worker:", "/var/lib/leveret-worker")
    host.run("systemctl", "daemon-reload")


def _copy_image(store: Path) -> None:
    image = stored_image(IMAGE)
    shutil.copytree(image.directory, store / "objects" / image.digest)
    name = Path("names") / IMAGE / image.manifest.architecture
    (store / name).parent.mkdir(parents=True)
    shutil.copy(image.store.root / name, store / name)


def test_every_service_is_ready_and_says_what_it_does(mill: Mill) -> None:
    for unit, does in {
        "leveret-intake": "taking submissions",
        "leveret-dispatcher": "1 workers",
        "leveret-logsink": "serving http://127.0.0.1:8080",
        "leveret-notifier": "taking ended jobs",
        f"leveret-worker@{WORKER}": "0 of 2 slots in use",
    }.items():
        assert mill.host.show(unit, "ActiveState") == "active"
        mill.host.until(unit, "StatusText", does)
        assert mill.host.show(unit, "NRestarts") == "0"


def test_a_worker_host_holds_no_address_of_a_database(mill: Mill) -> None:
    pid = mill.host.show(f"leveret-worker@{WORKER}", "MainPID")
    secrets = f"/proc/{pid}/root/run/credentials/leveret-worker@{WORKER}.service"
    held = mill.host.shell(f"ls {secrets}; cat /proc/{pid}/environ")
    assert "leveret_amqp_url" in held
    assert "database" not in held.lower()


def test_a_build_runs_in_a_caged_qemu_under_the_shipped_unit(mill: Mill) -> None:
    job = mill.begin("echo it is $((6 * 7)); sleep 20")
    pid = mill.host.shell("until pgrep --newest --exact qemu-system-x86; do sleep 0.1; done").split()[-1]
    status = mill.host.run("cat", f"/proc/{pid}/status")
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)
    own, host = (mill.host.run("readlink", f"/proc/{number}/ns/pid") for number in (pid, "1"))
    assert own != host, "bubblewrap gave it no namespaces"
    mill.succeeded(job)
    assert "it is 42" in mill.leveret(f"leveret logs {job}")
    assert f"(job: {job}" in mill.host.journal(f"leveret-worker@{WORKER}", f"LEVERET_JOB={job}")


def test_restarts_of_all_central_services_cost_no_running_build(mill: Mill) -> None:
    job = mill.begin("sleep 40")
    mill.host.run("systemctl", "restart", *(unit for unit in UNITS if "worker" not in unit), limit=120)
    assert mill.succeeded(job)["attempt"] == 1


def test_a_stopped_worker_ends_its_builds_first(mill: Mill) -> None:
    job = mill.begin("sleep 10")
    mill.host.run("systemctl", "stop", f"leveret-worker@{WORKER}", limit=120)
    assert mill.host.show(f"leveret-worker@{WORKER}", "Result") == "success"
    assert mill.succeeded(job)["attempt"] == 1
    mill.host.run("systemctl", "start", f"leveret-worker@{WORKER}", limit=120)


def test_a_service_that_waits_for_the_broker_is_not_given_up(mill: Mill) -> None:
    mill.host.put("/etc/systemd/system/leveret-intake.service.d/short.conf", "[Service]\nTimeoutStartSec=2\n")
    mill.host.run("systemctl", "daemon-reload")
    mill.host.run("systemctl", "stop", "leveret-intake", "rabbitmq-server", limit=240)
    mill.host.run("systemctl", "start", "--no-block", "leveret-intake")
    mill.host.until("leveret-intake", "StatusText", "waiting for RabbitMQ")
    mill.host.run("sleep", "4")  # twice what it would have without its beats
    assert mill.host.show("leveret-intake", "ActiveState") == "activating"
    mill.host.run("systemctl", "start", "rabbitmq-server", limit=240)
    mill.host.until("leveret-intake", "ActiveState", "active")
    mill.host.until("leveret-intake", "StatusText", "taking submissions")
    assert mill.host.show("leveret-intake", "NRestarts") == "0"
    for unit in UNITS:
        assert mill.host.show(unit, "ActiveState") == "active"


_BLOCKED = """
import time
from leveret_runtime.config import ServiceConfig
from leveret_runtime.service import command, ready

async def serve(config, stop):
    ready("about to block")
    hold_the_loop()

def hold_the_loop():
    time.sleep(120)

command("mill", ServiceConfig, serve)()
"""


def test_the_watchdog_ends_a_service_whose_loop_is_blocked_and_shows_where(mill: Mill) -> None:
    mill.host.put("/root/blocked.py", _BLOCKED)
    settings = ["Type=notify", "WatchdogSec=2s", "LimitCORE=0"]
    mill.host.run(
        "systemd-run", "--unit=blocked", *(f"--property={one}" for one in settings),
        "--setenv=LEVERET_SERVICE_AMQP_URL=amqp://h", "/opt/leveret/current/bin/python", "/root/blocked.py",
    )  # fmt: skip
    mill.host.until("blocked", "Result", "watchdog")
    assert "hold_the_loop" in mill.host.journal("blocked")


def test_a_frozen_service_is_started_again(mill: Mill) -> None:
    mill.host.put("/etc/systemd/system/leveret-notifier.service.d/short.conf", "[Service]\nWatchdogSec=2s\n")
    mill.host.run("systemctl", "daemon-reload")
    mill.host.run("systemctl", "restart", "leveret-notifier", limit=120)
    before = mill.host.show("leveret-notifier", "MainPID")
    mill.host.run("kill", "-STOP", before)
    mill.host.until("leveret-notifier", "NRestarts", "1")
    mill.host.until("leveret-notifier", "ActiveState", "active")
    assert mill.host.show("leveret-notifier", "MainPID") != before


def test_wrong_configuration_ends_a_service_for_good(mill: Mill) -> None:
    mill.host.put("/etc/leveret/notifier.yaml", "smpt_host: mail\n")
    mill.host.run("systemctl", "restart", "leveret-notifier", check=False)
    mill.host.until("leveret-notifier", "ActiveState", "failed")
    assert "smpt_host" in mill.host.journal("leveret-notifier")
    mill.host.put("/etc/leveret/notifier.yaml", "log_level: info\n")
    mill.host.run("systemctl", "start", "leveret-notifier", limit=120)


def test_an_upgrade_changes_nothing_that_runs_until_it_is_restarted(mill: Mill) -> None:
    running = mill.host.run("readlink", "/opt/leveret/current").strip()
    with zipfile.ZipFile(mill.host.root / mill.wheel.lstrip("/"), "a") as wheel:
        wheel.comment = b"another build"
    said = mill.host.run(
        "/root/install.sh", "install", mill.wheel,
        limit=300, PIP_NO_INDEX="1", PIP_FIND_LINKS="/root/wheels",
    )  # fmt: skip
    assert [line.split()[-1] for line in said.splitlines() if "systemctl restart" in line] == list(UNITS)
    assert mill.host.run("readlink", "/opt/leveret/current").strip() != running
    assert (mill.host.root / running.lstrip("/") / "bin/python").is_symlink()
    assert (mill.host.root / "etc/leveret/notifier.yaml").read_text() == "log_level: info\n", "it is the operator's"
    mill.host.run("systemctl", "restart", *UNITS, limit=240)
    job = mill.submit("true")
    mill.succeeded(job)


def test_it_goes_as_it_came(mill: Mill) -> None:
    mill.host.run("/root/install.sh", "remove", limit=240)
    assert (mill.host.root / "etc/leveret/worker.yaml").exists()
    assert (mill.host.root / "var/lib/leveret-worker/images").exists()
    mill.host.run("/root/install.sh", "remove", "--purge")
    for place in ("opt", "etc", "var/lib", "usr/local/bin", "usr/local/lib/systemd/system", "etc/systemd/system"):
        assert not list((mill.host.root / place).glob("*leveret*"))
    for listed in (("list-units", "--state=active,failed"), ("list-unit-files",)):
        assert mill.host.run("systemctl", *listed, "--no-legend", "leveret-*", check=False) == ""
    assert "leveret" not in mill.host.run("getent", "passwd")
