"""The reader: text in; a manifest or a list of diagnostics out. Pure, and bounded in time and memory for any input."""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import yaml

from leveret_proto.manifest import rules
from leveret_proto.manifest.diagnostics import Diagnostic, Findings
from leveret_proto.manifest.judge import Entry, Judge, Rejected
from leveret_proto.manifest.limits import DEFAULT_LIMITS, Limits
from leveret_proto.manifest.loaders import DEFAULT_LOADER, Loader
from leveret_proto.manifest.model import Manifest
from leveret_proto.manifest.nesting import too_deep
from leveret_proto.manifest.nodes import (
    Broken,
    Documents,
    Mapping,
    Node,
    compose,
    nested_too_deep,
)
from leveret_proto.manifest.rules_leveret import leveret
from leveret_proto.manifest.rules_triggers import triggers
from leveret_proto.manifest.syntax import Repair, explain
from leveret_proto.manifest.text import START, Unreadable, position, to_text, without_unprintable

Rule = Callable[[Judge, Node, str], Any]

#: Each key of a manifest and the rule that reads its value.
RULES: dict[str, Rule] = {
    "image": rules.image,
    "arch": rules.arch,
    "packages": rules.packages,
    "repositories": rules.repositories,
    "sources": rules.sources,
    "environment": rules.environment,
    "secrets": rules.secrets,
    "tasks": rules.tasks,
    "triggers": triggers,
    "artifacts": rules.artifacts,
    "shell": rules.shell,
    "oauth": rules.oauth,
    "submitter": rules.submitter,
    "leveret": leveret,
}
#: Given twice, these add to what is there already, as in builds.sr.ht's parser; other keys replace it.
_ADDING = frozenset(["repositories", "environment"])

#: How many syntax faults are looked past, and how many characters are read again for that, all told.
_MAX_REPAIRS = 16
_MAX_REREAD = 2**20


_ANCHOR = re.compile(r"&([A-Za-z0-9_-]+)")


@dataclass(frozen=True)
class Reading:
    """What came of reading a manifest.

    Attributes:
        manifest: the manifest, or None if there is any fault.
        diagnostics: faults and warnings in the order of the text.
        fatal: the input can't be judged as a manifest at all: too big, too deep, an alias bomb, or no YAML.
    """

    manifest: Manifest | None
    diagnostics: list[Diagnostic]
    fatal: bool = False

    @property
    def faults(self) -> list[Diagnostic]:
        return [found for found in self.diagnostics if found.severity == "fault"]

    @property
    def warnings(self) -> list[Diagnostic]:
        return [found for found in self.diagnostics if found.severity == "warning"]


def read(source: str | bytes, limits: Limits = DEFAULT_LIMITS, *, loader: type[Loader] = DEFAULT_LOADER) -> Reading:
    """Read a build manifest.

    Never raises for any input. Size, encoding and nesting are looked at before a YAML parser is.

    Args:
        source: the manifest's text, or its bytes (UTF-8; UTF-16 with a byte order mark).
        limits: the bounds and names of this installation.
        loader: which of PyYAML's parsers to use; there is no difference in what comes out.
    """
    found = Findings(limits.diagnostics)
    try:
        text = without_unprintable(to_text(source, limits.size), found)
        unprintable = found.faults > 0
        offset = too_deep(text, limits.nesting)
        if offset is not None:
            raise nested_too_deep(position(text, offset), limits.nesting)
        documents, damaged = _parse(text, limits, found, loader)
    except Unreadable as error:
        found = Findings(1)
        found.fault(error.place, "", error.message, error.hint)
        return Reading(None, found.in_order(), fatal=True)
    judge = Judge(limits, found)
    draft = _Draft(judge, damaged)
    draft.read(documents)
    manifest = None if found.faults else Manifest.model_validate(draft.values)
    no_yaml = (bool(damaged) or unprintable) and not draft.recognised
    return Reading(manifest, found.in_order(), fatal=no_yaml)


def _parse(text: str, limits: Limits, found: Findings, loader: type[Loader]) -> tuple[Documents, set[str]]:
    """Parse what can be parsed. Gives the names of top-level keys that lost something to syntax faults."""
    repair = Repair(text)
    budget = _MAX_REREAD
    for _ in range(_MAX_REPAIRS):
        attempt = Findings(limits.diagnostics)
        try:
            # An anchor may have been blanked together with a fault; an alias to it is no fault of its own.
            lost = _ANCHOR.findall(text) if repair.damaged else ()
            documents = compose(repair.text, limits, attempt, loader, frozenset(lost))
        except yaml.YAMLError as error:
            fault = explain(error, repair.text)
            path, is_new = repair.blank(fault)
            if is_new:
                found.fault(fault.place, path, fault.message, fault.hint)
            budget -= len(text)
            if budget < 0:
                break
            continue
        for item in attempt.items:
            found.report(item)
        return documents, repair.damaged
    return Documents(), {*repair.damaged, "*"}


class _Draft:
    """The manifest's values as they are collected, in its JSON form."""

    def __init__(self, judge: Judge, damaged: set[str]) -> None:
        self.judge = judge
        self.values: dict[str, Any] = {}
        #: Whether any key of a manifest was seen.
        self.recognised = False
        #: Keys that may be missing, or less than they were, only because of a fault reported already.
        self.unsure = set(damaged)
        self._keys: dict[str, Node] = {}

    def read(self, documents: Documents) -> None:
        root, found = documents.root, self.judge.found
        if documents.next is not None:
            message = "only the first YAML document is read; what follows is ignored"
            found.warn(documents.next, "", message, "remove it, or submit it as a manifest of its own")
        entries: list[Entry] = []
        try:
            if root is not None:
                entries = self.judge.entries(root, "", "a manifest: a mapping with image and tasks")
        except Rejected:
            return
        for entry in entries:
            self._key(entry)
        self._required(root)

    def _key(self, entry: Entry) -> None:
        rule = RULES.get(entry.name)
        if rule is None:
            self.judge.unknown(entry, RULES, "manifests")
            return
        self.recognised = True
        self._keys[entry.name] = entry.key
        before = self.judge.found.faults
        with suppress(Rejected):
            value = rule(self.judge, entry.value, entry.path)
            old = self.values.get(entry.name)
            if entry.name in _ADDING and old and value:
                value = {**old, **value}
            self.values[entry.name] = value
        if self.judge.found.faults > before or isinstance(entry.value, Broken):
            self.unsure.add(entry.name)
        if self.values.get(entry.name) is None:
            self.values.pop(entry.name, None)

    def _required(self, root: Node | None) -> None:
        place = root if isinstance(root, Mapping) else START
        if "image" not in self.values and not self._excused("image"):
            hint = "add a line such as 'image: debian/stable'"
            self.judge.found.fault(self._keys.get("image", place), "image", "a manifest needs an image", hint)
        has_work = self.values.get("tasks") or self.values.get("shell")
        if not has_work and "shell" not in self.unsure and not self._excused("tasks"):
            hint = "list at least one, as '- build: make'; only 'shell: true' does without"
            self.judge.found.fault(self._keys.get("tasks", place), "tasks", "a manifest needs tasks", hint)

    def _excused(self, key: str) -> bool:
        """Tell whether a key may be missing because of a fault reported already."""
        return key in self.unsure or ("*" in self.unsure and key not in self._keys)
