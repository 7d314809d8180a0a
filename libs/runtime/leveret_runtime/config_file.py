"""A configuration file: YAML, its keys with their lines, no key twice."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


class ConfigError(Exception):
    """The configuration can't be used; the text says which key of which file and why, a line each."""


@dataclass(frozen=True)
class Written:
    """What a file says. Without a file: nothing."""

    file: Path | None = None
    values: dict[str, Any] = field(default_factory=dict)
    #: The line of each key, counted from 1.
    lines: dict[str, int] = field(default_factory=dict)

    def where(self, key: str) -> str:
        """Say where the file has `key`, as in `intake.yaml:3`."""
        return f"{self.file}:{self.lines[key]}"


def read(file: Path) -> Written:
    """Read a configuration file.

    Raises:
        ConfigError: it can't be read, is not UTF-8, no YAML, no list of keys and values, or has a key twice.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such configuration file") from None
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8: {error.reason} at byte {error.start}") from None
    try:
        return _parsed(text, file)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{file}:{line}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not YAML: {error}") from None


def _parsed(text: str, file: Path) -> Written:
    loader = yaml.SafeLoader(text)
    try:
        return _of_node(loader, loader.get_single_node(), file)
    finally:
        loader.dispose()


def _of_node(loader: yaml.SafeLoader, node: yaml.Node | None, file: Path) -> Written:
    if node is None or node.tag == "tag:yaml.org,2002:null":
        return Written(file)
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{file}: a list of keys and values is wanted, as in `log_level: info`")
    written = Written(file)
    for key_node, value_node in node.value:
        key, line = str(loader.construct_object(key_node, deep=True)), key_node.start_mark.line + 1
        if key in written.lines:
            raise ConfigError(f"{file}:{line}: {key}: it is in line {written.lines[key]} already")
        written.values[key] = loader.construct_object(value_node, deep=True)
        written.lines[key] = line
    return written
