"""The JSON Schema of manifests, for editors, made from the model."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from leveret_proto.manifest.model import TASK_NAME, Manifest

_TEXT = {"type": ["string", "number", "boolean"]}


def schema() -> dict[str, Any]:
    """Give the JSON Schema (draft 2020-12) of a manifest as people write it, after YAML's own parsing."""
    made = Manifest.model_json_schema(mode="validation")
    parts = made["$defs"]
    parts["Source"] = {"type": "string", "description": "[dir::][scm+]url[#ref]", "minLength": 1}
    parts["Task"] = {
        "type": "object",
        "description": "name: script",
        "minProperties": 1,
        "maxProperties": 1,
        "patternProperties": {f"^{TASK_NAME.pattern}$": {"type": [*_TEXT["type"], "null"]}},
        "additionalProperties": False,
    }
    parts["Extension"]["additionalProperties"] = False
    parts["Requires"]["additionalProperties"] = False
    for name in ("time_limit", "task_time_limit", "queue_deadline"):
        parts["Extension"]["properties"][name]["anyOf"].insert(
            1, {"type": "string", "pattern": "^(?=[0-9])([0-9]+h)?([0-9]+m)?([0-9]+s)?$"}
        )
    parts["Extension"]["properties"]["memory"]["anyOf"].insert(
        1, {"type": "string", "pattern": "^[0-9]{1,9} ?(MiB|GiB)$"}
    )
    for part in (made, *parts.values()):
        for name, field in part.get("properties", {}).items():
            _loosen(field, optional=name not in part.get("required", ()))
    made["properties"]["submitter"] = {"title": "Submitter", "description": "git.sr.ht's settings; kept, not read"}
    parts.pop("JsonValue", None)
    made["anyOf"] = [
        {"required": ["tasks"], "properties": {"tasks": {"type": "array", "minItems": 1}}},
        {"required": ["shell"], "properties": {"shell": {"const": True}}},
    ]
    made["title"] = "Build manifest"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def _loosen(field: dict[str, Any], optional: bool) -> None:
    """Allow what the reader allows: any scalar for a text, null for what is optional."""
    field.pop("default", None)
    _scalars(field)
    if not optional:
        return
    if "anyOf" in field:
        if {"type": "null"} not in field["anyOf"]:
            field["anyOf"].append({"type": "null"})
        return
    moved = {name: field.pop(name) for name in list(field) if name not in ("title", "description")}
    field["anyOf"] = [moved, {"type": "null"}]


def _scalars(field: dict[str, Any]) -> None:
    if field.get("type") == "string" and "pattern" not in field and "enum" not in field:
        field["type"] = list(_TEXT["type"])
    for inner in ("items", "additionalProperties"):
        if isinstance(field.get(inner), dict):
            _scalars(field[inner])
    for choice in field.get("anyOf", ()):
        _scalars(choice)


def main(arguments: list[str] | None = None) -> int:
    """Write the schema to FILE; with `--check` compare only, and give 1 if FILE is stale."""
    parser = argparse.ArgumentParser(
        prog="leveret_proto.manifest.schema", description="Write the JSON Schema of manifests."
    )
    parser.add_argument("--check", action="store_true", help="fail if FILE is not what would be written")
    parser.add_argument("file", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    made = json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
    if not options.check:
        options.file.write_text(made, encoding="utf-8")
        return 0
    if options.file.is_file() and options.file.read_text(encoding="utf-8") == made:
        return 0
    sys.stderr.write(f"{options.file} is stale: run python -m leveret_proto.manifest.schema {options.file}\n")
    return 1
