"""What systemd is given: units that hold each service to what it needs, and samples of its configuration."""

import configparser
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from leveret_dispatcher.config import Config as DispatcherConfig
from leveret_intake.config import Config as IntakeConfig
from leveret_logsink.config import LogsinkConfig
from leveret_notifier.config import NotifierConfig
from leveret_runtime.config import ServiceConfig, load
from leveret_worker.config import Config as WorkerConfig

DEPLOY = Path(__file__).parents[3] / "deploy"
MODELS: dict[str, type[ServiceConfig]] = {
    "intake": IntakeConfig,
    "dispatcher": DispatcherConfig,
    "logsink": LogsinkConfig,
    "notifier": NotifierConfig,
    "worker": WorkerConfig,
}
CENTRAL = [name for name in MODELS if name != "worker"]
#: systemd's exposure, in tenths.
MOST_EXPOSED = dict.fromkeys(CENTRAL, 20) | {"worker": 45}


def unit(service: str) -> Path:
    return DEPLOY / "systemd" / ("leveret-worker@.service" if service == "worker" else f"leveret-{service}.service")


def settings(service: str) -> dict[str, str]:
    """A unit's section [Service]; of a repeated setting the last line."""
    read = configparser.ConfigParser(strict=False, interpolation=None)
    read.optionxform = str  # type: ignore[assignment,method-assign]
    read.read(unit(service))
    return dict(read["Service"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("service", MODELS)
def test_a_unit_is_exposed_no_more_than_it_must(service: str) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSED[service]}"]
    done = subprocess.run([*command, str(unit(service))], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    assert done.stderr == "", "systemd does not know every setting"


@pytest.mark.parametrize("service", MODELS)
def test_a_sample_is_a_good_configuration(service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the secrets that it names, and what the unit says."""
    for name in [name for name in os.environ if name.startswith("LEVERET_")]:
        monkeypatch.delenv(name)
    key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    secrets = {"amqp_url": "amqp://a:b@h/v", "database_url": "postgresql://a:b@h/d"}
    for name, text in (secrets | dict.fromkeys(("secrets_key", "link_key", "signing_key"), key)).items():
        (tmp_path / f"leveret_{name}").write_text(text + "\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    if service == "worker":
        monkeypatch.setenv("LEVERET_WORKER_NAME", "mill-1")
        monkeypatch.setenv("LEVERET_WORKER_SPOOL", str(tmp_path))
    assert load(MODELS[service], DEPLOY / "config" / f"{service}.yaml").log_level == "info"


def test_the_central_services_are_held_alike() -> None:
    own = ("ExecStart", "LoadCredential", "User", "DynamicUser", "StateDirectory", "StateDirectoryMode", "LimitNOFILE")
    common = [{key: value for key, value in settings(name).items() if key not in own} for name in CENTRAL]
    assert all(one == common[0] for one in common)


@pytest.mark.parametrize("service", MODELS)
def test_every_service_is_watched_restarted_and_given_its_secrets_as_credentials(service: str) -> None:
    said = settings(service)
    name = "worker@%i" if service == "worker" else service
    assert said["LoadCredential"] == f"leveret:/etc/leveret/credentials/{name}"
    assert (said["Type"], said["Restart"], said["RestartPreventExitStatus"]) == ("notify", "always", "2")
    assert said["WatchdogSec"] == "30s"
    assert "PASSWORD" not in unit(service).read_text().upper().replace("PASSWORDS ARE IN", "")


def test_a_stopped_worker_keeps_its_machines_until_it_is_drained() -> None:
    """Without this systemd sends every QEMU a SIGTERM along with the worker's."""
    assert settings("worker")["KillMode"] == "mixed"


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ([], 2, "install.sh install WHEEL"),
        (["install"], 1, "which wheel?"),
        (["install", "leveret.whl", "mill"], 1, "mill is no service"),
        (["install", "leveret.whl", "worker@a b"], 1, "use letters"),
        (["remove", "--all"], 1, "unknown option --all"),
    ],
)
def test_the_installer_says_what_is_wrong_and_touches_nothing(
    words: list[str], status: int, told: str, tmp_path: Path
) -> None:
    (tmp_path / "leveret.whl").touch()
    done = subprocess.run(
        [str(DEPLOY / "install.sh"), *words], cwd=tmp_path, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == status
    assert told in done.stderr
