"""Configuration: one YAML file a service, environment overrides, credentials from files. Unknown keys are errors.

Order, the first that has a value wins: environment (`LEVERET_<SERVICE>_<KEY>`), a credential file named like the key
(in systemd's CREDENTIALS_DIRECTORY), the YAML file, the default.
"""

import os
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
    SettingsError,
)


class ConfigError(Exception):
    """The configuration can't be used; the text says which key of which file and why."""


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
            sources.append(SecretsSettingsSource(settings_cls, secrets_dir=directory, env_prefix=""))
        sources.append(InitSettingsSource(settings_cls, init_kwargs=cls.WRITTEN))
        return tuple(sources)


class DatabaseConfig(ServiceConfig):
    """What a service that owns a schema is told besides."""

    database_url: SecretStr = Field(description="postgresql://role:password@host:port/database")


C = TypeVar("C", bound=ServiceConfig)


def load(model: type[C], file: Path | None) -> C:
    """Read the configuration of `model` from `file` (may be None), credentials and environment.

    Raises:
        ConfigError: what is wrong, key by key.
    """
    prefix = f"LEVERET_{model.SERVICE.upper()}_"
    bound: type[C] = type(
        model.__name__,
        (model,),
        {
            "WRITTEN": _written(file) if file is not None else {},
            "__module__": model.__module__,
            "model_config": SettingsConfigDict(extra="forbid", frozen=True, env_prefix=prefix),
        },
    )
    try:
        return bound()
    except ValidationError as error:
        faults = [
            f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        ]
        where = file or f"environment {prefix}*"
        raise ConfigError(f"{where}: " + "; ".join(faults)) from None
    except SettingsError as error:
        raise ConfigError(f"environment {prefix}*: {error}") from None


def _written(file: Path) -> dict[str, Any]:
    try:
        read = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such configuration file") from None
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8: {error.reason} at byte {error.start}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not YAML: {error}") from None
    if not isinstance(read, dict | None):
        raise ConfigError(f"{file}: a list of keys and values is wanted, as in `log_level: info`")
    return {str(key): value for key, value in (read or {}).items()}


def shown(config: ServiceConfig) -> dict[str, Any]:
    """Give the configuration for people: secrets hidden."""
    return config.model_dump(mode="json")
