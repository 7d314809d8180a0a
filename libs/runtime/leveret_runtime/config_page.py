"""The manual's page of all configuration keys, from the models themselves. Pure.

python tools/configuration-page docs/configuration.md          # write it
python tools/configuration-page --check docs/configuration.md  # say whether it is fresh
"""

import types
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from leveret_runtime.config import DatabaseConfig, ServiceConfig

_WORDS = {str: "text", int: "integer", float: "number", bool: "`true` or `false`", Path: "path", SecretStr: "secret"}
_BOUNDS = {annotated_types.Ge: ("ge", "≥"), annotated_types.Gt: ("gt", ">"), annotated_types.Le: ("le", "≤"),
           annotated_types.Lt: ("lt", "<")}  # fmt: skip


def page(head: str, models: Sequence[type[ServiceConfig]]) -> str:
    """Give the page as Markdown: `head`, what all have in common, then what each of `models` adds."""
    sections: list[tuple[str, type[ServiceConfig], type[ServiceConfig] | None]] = [
        ("All services", ServiceConfig, None),
        ("Services that own a schema: all but the worker", DatabaseConfig, ServiceConfig),
        *((model.SERVICE.capitalize(), model, _base(model)) for model in models),
    ]
    parts = [head.strip()]
    for title, model, base in sections:
        keys = [key for key in model.model_fields if base is None or key not in base.model_fields]
        parts.append(f"## {title}\n\n" + "\n".join(_table(model, keys)))
        for key in keys:
            parts += [f"A value of `{key}`:\n\n" + "\n".join(_table(m, m.model_fields)) for m in _nested(model, key)]
    return "\n\n".join(parts) + "\n"


def _base(model: type[ServiceConfig]) -> type[ServiceConfig]:
    return DatabaseConfig if issubclass(model, DatabaseConfig) else ServiceConfig


def _table(model: type[BaseModel], keys: Iterable[str]) -> Iterator[str]:
    yield "| key | value | default | |"
    yield "|---|---|---|---|"
    for key in keys:
        field = model.model_fields[key]
        cells = (f"`{key}`", _value(field), _default(field), field.description or "")
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("<", "\\<") for cell in cells) + " |"


def _value(field: FieldInfo) -> str:
    """Say in words what the key takes, within which bounds."""
    bounds = []
    for found in field.metadata:
        for kind, (name, sign) in _BOUNDS.items():
            if isinstance(found, kind):
                bounds.append(f"{sign} {getattr(found, name):,}")
    return ", ".join([_word(field.annotation), *bounds])


def _word(annotation: Any) -> str:
    if annotation in _WORDS:
        return _WORDS[annotation]
    origin, given = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in given)
    if origin in (Union, types.UnionType):
        return _word(next(part for part in given if part is not types.NoneType))
    if origin is dict:
        return f"mapping: text to {_word(given[1])}"
    if origin is tuple:
        return "list"
    if hasattr(annotation, "__metadata__"):
        return _word(get_args(annotation)[0])
    return "keys"


def _default(field: FieldInfo) -> str:
    """Give the default as YAML has it. One that is made at the start is said in the description."""
    if field.is_required():
        return "must be given"
    if field.default_factory is not None or field.default is PydanticUndefined:
        return ""
    default = field.default
    if default is None:
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, float):
        return f"`{default:.12g}`"
    if isinstance(default, dict | tuple):
        return f"`{list(default)}`" if default else ""
    return f"`{default}`"


def _nested(model: type[BaseModel], key: str) -> list[type[BaseModel]]:
    found = get_args(model.model_fields[key].annotation)
    return [part for part in found if isinstance(part, type) and issubclass(part, BaseModel)]
