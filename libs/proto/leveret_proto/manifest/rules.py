"""The rules of the plain keys, one function a key. Triggers and `leveret` have files of their own.

Each takes the judge, a value node and its YAML path, and gives the value in the manifest's JSON form. Sources, unless
said otherwise: `api/graph/manifest.go`, `buildsrht/manifest.py` and `worker/tasks.go` of builds.sr.ht, 2023.
"""

import re
from contextlib import suppress
from decimal import Decimal
from typing import Any

from leveret_proto.manifest.diagnostics import quote
from leveret_proto.manifest.guess import closest, closest_images, did_you_mean
from leveret_proto.manifest.judge import Entry, Judge, Rejected
from leveret_proto.manifest.model import TASK_NAME
from leveret_proto.manifest.nodes import Mapping, Node, Scalar, Sequence
from leveret_proto.manifest.sources import Source, base_name, doubts
from leveret_proto.words import WordError, escape

#: Names other systems use for an architecture → the one Leveret and QEMU use.
ARCH_SYNONYMS = {"amd64": "x86_64", "arm64": "aarch64", "ppc64el": "ppc64le"}

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
#: Images and architectures are words of routing keys, escaped (see `leveret_proto.base`).
_MAX_IMAGE, _MAX_ARCH = 80, 64
_SECRET_BYTES = range(4, 512)


def image(judge: Judge, node: Node, path: str) -> str | None:
    name = judge.text(node, path, "the name of an image")
    if not name:
        return None
    _routable(judge, node, path, name, _MAX_IMAGE)
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise judge.reject(node, path, f"{quote(name)} is no name of an image", "write it as debian/stable")
    name = judge.limits.image_synonyms.get(name, name)
    known = judge.limits.known_images
    if known is not None and name not in known:
        _never_offered(judge, node, path, f"image {quote(name)}", closest_images(name, known))
    return name


def arch(judge: Judge, node: Node, path: str) -> str | None:
    name = judge.text(node, path, "the name of an architecture")
    if not name:
        return None
    _routable(judge, node, path, name, _MAX_ARCH)
    name = ARCH_SYNONYMS.get(name, name)
    known = judge.limits.known_arches
    if known is not None and name not in known:
        _never_offered(judge, node, path, f"architecture {quote(name)}", closest(name, known, 3))
    return name


def _routable(judge: Judge, node: Node, path: str, name: str, limit: int) -> None:
    if _CONTROL.search(name):
        raise judge.reject(node, path, f"{quote(name)} holds a control character", "a name stands on one line")
    try:
        escape(name, limit)
    except WordError as error:
        raise judge.reject(node, path, "the name is too long", str(error)) from error


def _never_offered(judge: Judge, node: Node, path: str, what: str, names: list[str]) -> None:
    message, hint = f"no worker has ever offered the {what}", did_you_mean(names)
    if judge.limits.unknown == "reject":
        raise judge.reject(node, path, message, hint)
    judge.found.warn(node, path, message, hint or "the job waits until a worker does")


def packages(judge: Judge, node: Node, path: str) -> list[str]:
    return [text for text, _, _ in judge.texts(node, path, "package names")]


def repositories(judge: Judge, node: Node, path: str) -> dict[str, str]:
    found = {}
    for entry in judge.entries(node, path, "a mapping of names to sources"):
        with suppress(Rejected):
            if text := judge.text(entry.value, entry.path, "the source of a repository"):
                found[entry.name] = text
            else:
                judge.found.warn(entry.key, entry.path, "a repository without a source is left out", "remove it")
    return found


def sources(judge: Judge, node: Node, path: str) -> list[str]:
    found = []
    for text, item, place in judge.texts(node, path, "addresses"):
        if doubt := doubts(Source.parse(text)):
            judge.found.warn(item, place, f"fetching {quote(text)} will fail: {doubt}", "[dir::][scm+]url[#ref]")
        found.append(text)
    return found


def environment(judge: Judge, node: Node, path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in judge.entries(node, path, "a mapping of names to values"):
        if not _VARIABLE.fullmatch(entry.name):
            message = f"{quote(entry.name)} is no name bash could export"
            judge.found.warn(entry.key, entry.path, message, "letters, digits and '_', not a digit first")
        with suppress(Rejected):
            found[entry.name] = _variable(judge, entry)
    return found


def _variable(judge: Judge, entry: Entry) -> Any:
    node, path = entry.value, entry.path
    if isinstance(node, Sequence):
        return [judge.text(item, place) or "" for item, place in judge.items(node, path, "texts")]
    value = judge.value(node, path, "a text, number, boolean, null or list of texts")
    if isinstance(value, float):
        written, read = node.text if isinstance(node, Scalar) else "", number(value)
        if read != written:
            message = f"{written} is a number, so the guest gets {read}"
            judge.found.warn(node, path, message, f'quote it to keep it: "{written}"')
    return value


def number(value: float) -> str:
    """Give a float as the guest gets it: as Go's `%g` prints it for builds.sr.ht's worker."""
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    power = len(digits) + int(exponent) - 1
    if -4 <= power < 21:
        return f"{Decimal(repr(value)):f}".removesuffix(".0")
    mantissa = "".join(map(str, digits))
    point = f".{mantissa[1:]}" if len(mantissa) > 1 else ""
    return f"{'-' if sign else ''}{mantissa[0]}{point}e{'-' if power < 0 else '+'}{abs(power):02}"


def secrets(judge: Judge, node: Node, path: str) -> list[str]:
    found = []
    for item, place in judge.items(node, path, "secrets"):
        with suppress(Rejected):
            name = judge.text(item, place, "the UUID or name of a secret") or ""
            if len(name.encode()) not in _SECRET_BYTES:
                hint = "give its UUID, or its name of 4 to 511 bytes"
                raise judge.reject(item, place, f"{quote(name)} is neither UUID nor name of a secret", hint)
            found.append(name)
    return found


def artifacts(judge: Judge, node: Node, path: str) -> list[str]:
    found: dict[str, str] = {}
    most = judge.limits.artifacts
    for item, place in judge.items(node, path, "paths"):
        with suppress(Rejected):
            text = judge.text(item, place, "the path of a file")
            if not text:
                raise judge.reject(item, place, "an artifact needs a path", "remove the empty item")
            name = base_name(text)
            if (other := found.get(name)) is not None:
                twice = "is listed twice" if other == text else f"has the same file name as {quote(other)}"
                raise judge.reject(item, place, f"the artifact {quote(text)} {twice}", "file names must differ")
            if len(found) == most:
                judge.found.warn(item, place, f"only the first {most} artifacts are kept", "pack files together")
            found[name] = text
    return list(found.values())[:most]


def shell(judge: Judge, node: Node, path: str) -> bool:
    return judge.flag(node, path)


def oauth(judge: Judge, node: Node, path: str) -> str | None:
    return judge.text(node, path, "OAuth grants")


def tasks(judge: Judge, node: Node, path: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    lines: dict[str, int] = {}
    for item, place in judge.items(node, path, "tasks"):
        with suppress(Rejected):
            entry = _task(judge, item, place)
            name = entry.name
            if name in lines:
                hint = f"the first is in line {lines[name]}"
                raise judge.reject(entry.key, entry.path, f"there are two tasks called {quote(name)}", hint)
            lines[name] = entry.key.line
            if not TASK_NAME.fullmatch(name):
                hint = "a task's name has 1 to 128 of a-z, 0-9, '_' and '-'"
                raise judge.reject(entry.key, entry.path, f"{quote(name)} can't name a task", hint)
            found.append({name: judge.text(entry.value, entry.path, "a script") or ""})
    return found


def _task(judge: Judge, item: Node, path: str) -> Entry:
    """Give the one entry of a task; of a name given twice in it, the later one."""
    wanted = "a task as 'name: script'"
    if judge.is_null(item):
        raise judge.reject(item, path, f"expected {wanted}, not an empty item")
    entries = {entry.name: entry for entry in judge.entries(item, path, wanted)}
    if len(entries) != 1:
        if isinstance(item, Mapping) and len(item.pairs) != 1:
            names = ", ".join(quote(name) for name in list(entries)[:4]) or "none"
            hint = "begin each task with '- ', and indent its script"
            raise judge.reject(item, path, f"a task has one name; here are {len(entries)}: {names}", hint)
        raise Rejected
    return next(iter(entries.values()))


def submitter(judge: Judge, node: Node, path: str) -> Any:
    """Keep whatever git.sr.ht's `submitter` holds, as JSON. The size of what aliases expand to is bounded already."""
    if isinstance(node, Sequence):
        return [submitter(judge, item, place) for item, place in judge.items(node, path, "")]
    if isinstance(node, Mapping):
        entries = judge.entries(node, path, "")
        return {entry.name: submitter(judge, entry.value, entry.path) for entry in entries}
    return judge.value(node, path, "")
