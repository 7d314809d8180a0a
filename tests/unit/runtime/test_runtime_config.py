from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from click.testing import CliRunner
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from leveret_runtime.config import ConfigError, DatabaseConfig, Origins, default_file, load, shown
from leveret_runtime.service import command, require

URL = "amqp://me:hunter2@localhost:5672/v"
DSN = "postgresql://role:hunter3@localhost/db"


class Mill(BaseModel):
    model_config = ConfigDict(extra="forbid")

    stones: int = 1
    speeds: int = 1


class Config(DatabaseConfig):
    """A made-up service's."""

    SERVICE: ClassVar[str] = "mill"

    slots: int = Field(2, ge=1, description="jobs at the same time")
    spare: int = Field(0, description="of these, kept free")
    mills: dict[str, Mill] = Field({}, description="by name")
    mirrors: dict[str, str] = Field({}, description="prefix: directory")

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if self.spare > self.slots:
            raise ValueError(f"spare ({self.spare}) is more than slots ({self.slots})")
        return self


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setenv("CONFIGURATION_DIRECTORY", "/nonexistent")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "mill.yml"
    made.write_text(f"amqp_url: {URL}\ndatabase_url: {DSN}\nslots: 3\n")
    return made


def test_the_file_is_read(file: Path) -> None:
    read = load(Config, file)
    assert (read.slots, read.log_level, read.amqp_url.get_secret_value()) == (3, "info", URL)


def test_the_environment_wins_over_credentials_and_those_over_the_file(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "amqp_url").write_text("amqp://from-credential/v\n")
    (credentials / "database_url").write_text("postgresql://from-credential/db")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    monkeypatch.setenv("LEVERET_MILL_AMQP_URL", "amqp://from-environment/v")
    monkeypatch.setenv("LEVERET_MILL_MIRRORS", '{"https://": "/srv"}')
    monkeypatch.setenv("LEVERET_OTHER_SLOTS", "9")
    read = load(Config, file)
    assert read.amqp_url == SecretStr("amqp://from-environment/v")
    assert read.database_url == SecretStr("postgresql://from-credential/db")
    assert (read.slots, read.mirrors) == (3, {"https://": "/srv"})


def test_credentials_of_a_directory_have_a_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd's LoadCredential= puts the name it is given in front of each file's."""
    (tmp_path / "leveret_amqp_url").write_text(f"{URL}\n")
    (tmp_path / "leveret_database_url").write_text(f"{DSN}\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert load(Config, None).amqp_url == SecretStr(URL)
    assert Origins(Config, None).of("amqp_url") == "credential leveret_amqp_url"


def test_a_credential_file_may_end_with_a_newline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "amqp_url").write_text(f"{URL}\n")
    (tmp_path / "database_url").write_text(f"{DSN}\n")
    (tmp_path / "unrelated").write_text("another unit's")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert load(Config, None).amqp_url == SecretStr(URL)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("slot: 3\n", ":3: slot: there is no such key; did you mean 'slots'?"),
        ("Log-Level: info\n", ":3: Log-Level: there is no such key; did you mean 'log_level'?"),
        ("frobnicate: 3\n", ":3: frobnicate: there is no such key"),
        ("slots: 0\n", ":3: slots: Input should be greater than or equal to 1"),
        ("slots: many\n", ":3: slots: Input should be a valid integer"),
        ("log_level: loud\n", ":3: log_level: Input should be"),
        (
            "mills: {north: {speed: 4}}\n",
            ":3: mills.north.speed: there is no such key; did you mean 'speeds'?",
        ),
        ("slots: 3\nslots: 4\n", ":4: slots: it is in line 3 already"),
        ("slots: !!python/object:os.system 1\n", ":3: not YAML: could not determine a constructor"),
        ("slots: \x01\n", "not YAML"),
        ("slots: 3\n---\nslots: 4\n", "not YAML: but found another document"),
        ("slots: [\n", "not YAML"),
        ("- slots\n", "a list of keys and values is wanted"),
        ("just text\n", "a list of keys and values is wanted"),
        ("slots: \xff\n", "not UTF-8"),
        ("1: 2\n", ":3: 1: there is no such key"),
    ],
)
def test_what_is_wrong_is_said(file: Path, text: str, told: str) -> None:
    file.write_bytes(f"amqp_url: {URL}\ndatabase_url: {DSN}\n".encode() * (not text.startswith(("-", "just")))
                     + text.encode("latin-1"))  # fmt: skip
    with pytest.raises(ConfigError) as raised:
        load(Config, file)
    assert str(file) in str(raised.value)
    assert told in str(raised.value)
    assert "hunter" not in str(raised.value)


def test_every_missing_key_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError) as raised:
        load(Config, None)
    assert str(raised.value).splitlines() == [
        "amqp_url: it must be given: LEVERET_MILL_AMQP_URL, or a credential amqp_url",
        "database_url: it must be given: LEVERET_MILL_DATABASE_URL, or a credential database_url",
    ]


def test_a_variable_that_no_key_has_is_a_fault_with_a_guess(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEVERET_MILL_SLOT", "3")
    with pytest.raises(ConfigError) as raised:
        load(Config, file)
    told = "environment LEVERET_MILL_SLOT: there is no such key; did you mean 'LEVERET_MILL_SLOTS'?"
    assert str(raised.value) == told


def test_a_fault_says_where_the_value_is_from(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "log_level").write_text("loud")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    monkeypatch.setenv("LEVERET_MILL_SLOTS", "0")
    file.write_text(f"amqp_url: {URL}\ndatabase_url: {DSN}\nmonitor_port: 70000\n")
    with pytest.raises(ConfigError) as raised:
        load(Config, file)
    assert [fault.split(": ")[:2] for fault in sorted(str(raised.value).splitlines())] == [
        [f"{file}:3", "monitor_port"],
        ["credential log_level", "log_level"],
        ["environment LEVERET_MILL_SLOTS", "slots"],
    ]


def test_what_keys_mean_together_is_told_of_the_file(file: Path) -> None:
    file.write_text(f"amqp_url: {URL}\ndatabase_url: {DSN}\nslots: 3\nspare: 4\n")
    with pytest.raises(ConfigError) as raised:
        load(Config, file)
    assert str(raised.value) == f"{file}: spare (4) is more than slots (3)"


def test_a_file_in_the_configuration_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONFIGURATION_DIRECTORY", f"{tmp_path / 'none'}:{tmp_path}")
    assert default_file("mill") is None
    (tmp_path / "mill.yaml").touch()
    assert default_file("mill") == tmp_path / "mill.yaml"


def test_a_variable_that_is_no_json(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEVERET_MILL_MIRRORS", "https://=/srv")
    with pytest.raises(ConfigError, match=r"environment LEVERET_MILL_\*: .*mirrors"):
        load(Config, file)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        load(Config, tmp_path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yml: no such configuration file"):
        load(Config, tmp_path / "none.yml")


def test_an_empty_file_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mill.yml").touch()
    monkeypatch.setenv("LEVERET_MILL_AMQP_URL", URL)
    monkeypatch.setenv("LEVERET_MILL_DATABASE_URL", DSN)
    assert load(Config, tmp_path / "mill.yml").slots == 2


def test_secrets_are_hidden(file: Path) -> None:
    read = load(Config, file)
    assert "hunter" not in str(shown(read)) + repr(read)


async def _never(config: Config, stop: object) -> None:
    raise AssertionError("the service must not start")


class TestCommand:
    run = staticmethod(
        lambda *given: CliRunner().invoke(command("mill", Config, _never), [str(part) for part in given])
    )

    def test_a_good_configuration(self, file: Path) -> None:
        ended = self.run("--config", file, "--check-config")
        assert ended.exit_code == 0
        assert f"the configuration is good ({file})" in ended.stderr

    def test_a_bad_one(self, file: Path) -> None:
        file.write_text("slot: 1\n")
        for option in ("--check-config", "--show-config", None):
            ended = self.run("--config", file, *([option] if option else []))
            assert ended.exit_code == 2
            assert "leveret-mill: " in ended.stderr and "slot: there is no such key" in ended.stderr

    def test_what_is_in_force_is_shown_without_secrets_and_with_where_it_is_from(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LEVERET_MILL_MIRRORS", '{"https://": "/srv: 1"}')
        ended = self.run("--config", file, "--show-config")
        assert ended.exit_code == 0
        lines = ended.stdout.splitlines()
        assert f"slots: 3  # {file}:3" in lines
        assert f"amqp_url: '**********'  # {file}:1" in lines
        assert "monitor_port: null" in lines
        assert "mirrors: {'https://': '/srv: 1'}  # environment LEVERET_MILL_MIRRORS" in lines
        assert "hunter" not in ended.output
        assert yaml.safe_load(ended.stdout)["slots"] == 3

    def test_without_an_option_the_file_in_the_configuration_directory_is_read(
        self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CONFIGURATION_DIRECTORY", str(tmp_path))
        file.rename(tmp_path / "mill.yaml")
        assert f"slots: 3  # {tmp_path / 'mill.yaml'}:3" in self.run("--show-config").stdout

    def test_help_and_version(self) -> None:
        assert "LEVERET_MILL_*" in self.run("--help").stdout
        assert self.run("--version").exit_code == 0


def test_a_missing_extra_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    require("mill", "json", "asyncio")
    with pytest.raises(SystemExit) as raised:
        require("mill", "json", "no_such_module_at_all")
    assert raised.value.code == 2
    assert capsys.readouterr().err == "leveret-mill: no_such_module_at_all is missing; install leveret[mill]\n"
