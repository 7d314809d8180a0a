"""Configuration: one YAML file a service, environment overrides, credentials from files. Unknown keys are errors.

Order, the first that has a value wins: environment (`LEVERET_<SERVICE>_<KEY>`), a credential file named like the key,
or `leveret_<key>` (in systemd's CREDENTIALS_DIRECTORY), the YAML file, the default.
"""

import os
import typing
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from leveret_proto.manifest.guess import closest, did_you_mean
from leveret_runtime import config_file
from leveret_runtime.config_file import ConfigError as ConfigError
from leveret_runtime.config_file import Written

#: Where a service looks for its file unless systemd (`ConfigurationDirectory=`) or the command line says otherwise.
DIRECTORY = "/etc/leveret"
#: A credential file is named like its key, or so: of a directory, LoadCredential=leveret:DIRECTORY makes leveret_<key>.
CREDENTIAL_PREFIXES = ("leveret_", "")


class ServiceConfig(BaseSettings):
    """What every service is told."""

    SERVICE: ClassVar[str] = "service"
    #: What the file says.
    WRITTEN: ClassVar[dict[str, Any]] = {}

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    amqp_url: SecretStr = Field(description="amqp://user:password@host:port/vhost, or amqps for TLS")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="what is logged")
    monitor_host: str = Field("127.0.0.1", description="address of the monitor: metrics and probes over HTTP")
    monitor_port: int | None = Field(
        None, ge=0, le=65535, description="its port; 0 takes a free one and logs which; none: there is no monitor"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        sources: list[PydanticBaseSettingsSource] = [init_settings, env_settings]
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if directory:
            for prefix in CREDENTIAL_PREFIXES:
                sources.append(SecretsSettingsSource(settings_cls, secrets_dir=directory, env_prefix=prefix))
        sources.append(InitSettingsSource(settings_cls, init_kwargs=cls.WRITTEN))
        return tuple(sources)


class DatabaseConfig(ServiceConfig):
    """What a service that owns a schema is told besides."""

    database_url: SecretStr = Field(description="postgresql://role:password@host:port/database")


C = TypeVar("C", bound=ServiceConfig)


def default_file(service: str) -> Path | None:
    """Give the service's file in the configuration directory; None where there is none."""
    for directory in (os.environ.get("CONFIGURATION_DIRECTORY") or DIRECTORY).split(":"):
        file = Path(directory) / f"{service}.yaml"
        if file.exists():
            return file
    return None


def load(model: type[C], file: Path | None) -> C:
    """Read the configuration of `model` from `file` (may be None), credentials and environment.

    Raises:
        ConfigError: what is wrong, a line for each key.
    """
    origins = Origins(model, file)
    written = origins.written
    faults = list(_unknown(origins))
    bound: type[C] = type(
        model.__name__,
        (model,),
        {
            "WRITTEN": {key: value for key, value in written.values.items() if key in model.model_fields},
            "__module__": model.__module__,
            "model_config": SettingsConfigDict(extra="forbid", frozen=True, env_prefix=origins.prefix),
        },
    )
    try:
        read = bound()
    except ValidationError as error:
        told = error.errors(include_url=False, include_input=False)
        faults += [_fault(origins, fault["loc"], fault["type"], fault["msg"]) for fault in told]
    except SettingsError as error:
        faults.append(f"environment {origins.prefix}*: {error}")
    if faults:
        raise ConfigError("\n".join(faults))
    return read


class Origins:
    """Where each key of a model has its value from: environment, credential, file."""

    def __init__(self, model: type[ServiceConfig], file: Path | None) -> None:
        """`file`: None where there is none. Raises ConfigError where it can't be read."""
        self.model = model
        self.written = config_file.read(file) if file is not None else Written()
        self.prefix = f"LEVERET_{model.SERVICE.upper()}_"

    def of(self, key: str) -> str | None:
        """Say where `key` is given; None: nowhere, its default holds."""
        if self.variable(key) in self.variables():
            return f"environment {self.variable(key)}"
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        for name in [prefix + key for prefix in CREDENTIAL_PREFIXES] if directory else ():
            if (Path(directory or "") / name).is_file():
                return f"credential {name}"
        return self.written.where(key) if key in self.written.lines else None

    def variable(self, key: str) -> str:
        return f"{self.prefix}{key.upper()}"

    def variables(self) -> set[str]:
        """The variables of the environment that are meant for this service, whether or not there are such keys."""
        return {name.upper() for name in os.environ if name.upper().startswith(self.prefix)}


def _unknown(origins: Origins) -> Iterator[str]:
    """Name the keys that there are not, of file and environment, each with a guess."""
    known = origins.model.model_fields.keys()
    for key in origins.written.lines.keys() - known:
        yield f"{origins.written.where(key)}: {key}: {_no_such_key(key, known)}"
    for name in sorted(origins.variables()):
        key = name.removeprefix(origins.prefix).lower()
        if key not in known:
            guesses = [origins.variable(guess) for guess in closest(key, known)]
            yield f"environment {name}: there is no such key{_hint(guesses)}"


def _fault(origins: Origins, loc: tuple[int | str, ...], kind: str, said: str) -> str:
    """Tell of one fault: where it is, which key, what is wrong with it."""
    if not loc:
        return f"{origins.written.file or f'environment {origins.prefix}*'}: {said.removeprefix('Value error, ')}"
    key, name = str(loc[0]), ".".join(str(part) for part in loc)
    if kind == "missing" and len(loc) == 1:
        places = [origins.variable(key), f"a credential {key}"]
        if origins.written.file is not None:
            places.insert(0, str(origins.written.file))
        return f"{key}: it must be given: {', or '.join(places)}"
    if kind == "extra_forbidden":
        said = _no_such_key(str(loc[-1]), _keys_at(origins.model, loc[:-1]))
    return f"{origins.of(key) or 'default'}: {name}: {said.removeprefix('Value error, ')}"


def _no_such_key(key: str, known: Collection[str]) -> str:
    return f"there is no such key{_hint(closest(key, known))}"


def _hint(guesses: list[str]) -> str:
    return f"; {did_you_mean(guesses)}" if guesses else ""


def _keys_at(model: type[BaseModel], loc: Iterable[int | str]) -> Collection[str]:
    """Give the keys that a value within `model` may have, as those of an owner's policy."""
    found: Any = model
    for part in loc:
        models = _models(found)
        fields = models[0].model_fields if models else {}
        found = fields[str(part)].annotation if str(part) in fields else found
    models = _models(found)
    return models[0].model_fields.keys() if models else ()


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Give the models that are in a type, as in `dict[str, OwnerPolicy]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models(part)]


def shown(config: ServiceConfig) -> dict[str, Any]:
    """Give the configuration for people: secrets hidden."""
    return config.model_dump(mode="json")


def listed(config: ServiceConfig, origins: Origins) -> Iterator[str]:
    """Give the configuration in force as the lines of a YAML file, secrets hidden, each with where it is from."""
    for key, value in shown(config).items():
        text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
        origin = origins.of(key)
        yield f"{key}: {text.strip().removesuffix('...').strip()}" + (f"  # {origin}" if origin else "")
