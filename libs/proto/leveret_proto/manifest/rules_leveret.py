"""The rules of `leveret:`, the one key of our own.

No manifest of builds.sr.ht has it, so whatever is unknown under it is a fault.
"""

import re
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from leveret_proto.manifest.diagnostics import quote
from leveret_proto.manifest.guess import closest, did_you_mean
from leveret_proto.manifest.judge import Entry, Judge, Rejected
from leveret_proto.manifest.model import ARTIFACTS_ON, MAX_CPUS, MAX_MEMORY, MAX_TIME_LIMIT, MIB, MIN_MEMORY, TAG
from leveret_proto.manifest.nodes import Node

_SIZE = re.compile(r"([0-9]{1,9}) ?(MiB|GiB)")
_UNITS = {"MiB": MIB, "GiB": 1024 * MIB}
_DURATION = re.compile(r"(?=[0-9])(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,6})s)?")


def leveret(judge: Judge, node: Node, path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    known = ("requires", "memory", "cpus", "time_limit", "task_time_limit", "queue_deadline", "artifacts_on")
    for entry in _entries(judge, node, path, known):
        with suppress(Rejected):
            value: Any = None
            match entry.name:
                case "requires":
                    value = _requires(judge, entry.value, entry.path)
                case "memory":
                    value = _memory(judge, entry.value, entry.path)
                case "cpus":
                    value = _cpus(judge, entry.value, entry.path)
                case "time_limit":
                    value = _duration(judge, entry.value, entry.path, "no time limit")
                case "task_time_limit":
                    value = _duration(judge, entry.value, entry.path, "no time limit")
                case "queue_deadline":
                    value = _duration(judge, entry.value, entry.path, "no queue deadline")
                case "artifacts_on":
                    value = judge.choice(entry.value, entry.path, ARTIFACTS_ON)
            found[entry.name] = value
    return {name: value for name, value in found.items() if value is not None}


def _requires(judge: Judge, node: Node, path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in _entries(judge, node, path, ("kvm", "tags")):
        with suppress(Rejected):
            if entry.name == "kvm":
                found["kvm"] = judge.flag(entry.value, entry.path)
            else:
                found["tags"] = _tags(judge, entry.value, entry.path)
    return found


def _tags(judge: Judge, node: Node, path: str) -> list[str]:
    tags: dict[str, None] = {}
    for item, place in judge.items(node, path, "labels"):
        with suppress(Rejected):
            text = judge.text(item, place, "a label") or ""
            if not TAG.fullmatch(text):
                hint = "1 to 128 printable ASCII characters without blanks, as disk=large"
                raise judge.reject(item, place, f"{quote(text)} is no label", hint)
            tags[text] = None
    return list(tags)


def _memory(judge: Judge, node: Node, path: str) -> int | None:
    value = judge.value(node, path, "a size as 512MiB or 2GiB, or a number of bytes")
    if value is None:
        return None
    size = value if isinstance(value, int) and not isinstance(value, bool) else -1
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        size = int(match[1]) * _UNITS[match[2]]
    if MIN_MEMORY <= size <= MAX_MEMORY and size % MIB == 0:
        return size
    hint = f"whole MiB from {MIN_MEMORY // MIB}MiB to {MAX_MEMORY // MIB // 1024}GiB, as 512MiB, 2GiB, or in bytes"
    raise judge.reject(node, path, f"{quote(judge.text(node, path) or '')} is no size of a memory", hint)


def _cpus(judge: Judge, node: Node, path: str) -> int | None:
    value = judge.value(node, path, "a number of virtual processors")
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_CPUS:
        return value
    text = quote(judge.text(node, path) or "")
    raise judge.reject(node, path, f"{text} is no number of virtual processors", f"a whole number from 1 to {MAX_CPUS}")


def _duration(judge: Judge, node: Node, path: str, fault: str) -> int | None:
    value = judge.value(node, path, "a number of seconds, or a text as 90m")
    if value is None:
        return None
    seconds = value if isinstance(value, int) and not isinstance(value, bool) else -1
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        hours, minutes, rest = (int(part or 0) for part in match.groups())
        seconds = hours * 3600 + minutes * 60 + rest
    if 1 <= seconds <= MAX_TIME_LIMIT:
        return seconds
    text = quote(judge.text(node, path) or "")
    hint = f"a whole number of seconds up to {MAX_TIME_LIMIT}, or a text as 90m, 1h30m, 45s"
    raise judge.reject(node, path, f"{text} is {fault}", hint)


def _entries(judge: Judge, node: Node, path: str, known: Collection[str]) -> list[Entry]:
    """Give the entries whose keys are known, and report the others."""
    entries = judge.entries(node, path, f"a mapping with {', '.join(known)}")
    for entry in entries:
        if entry.name not in known:
            hint = did_you_mean(closest(entry.name, known)) or f"known are {', '.join(known)}"
            judge.found.fault(entry.key, entry.path, f"there is no {quote(entry.name)} under '{path}'", hint)
    return [entry for entry in entries if entry.name in known]
