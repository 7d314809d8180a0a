"""The rules of `triggers`: who is told when the job has ended. Source: `Trigger` and `LoadManifest` of
`api/graph/manifest.go`, `worker/triggers.go` of builds.sr.ht, 2023."""

import re
from contextlib import suppress

from leveret_proto.manifest.addresses import addresses
from leveret_proto.manifest.diagnostics import child, quote
from leveret_proto.manifest.judge import Entry, Judge, Rejected
from leveret_proto.manifest.model import ACTIONS, CONDITIONS
from leveret_proto.manifest.nodes import Node

_KEYS = {
    "email": frozenset(["action", "condition", "to", "cc", "in_reply_to"]),
    "webhook": frozenset(["action", "condition", "url"]),
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_URL = re.compile(r"https?://[^\s/]+\S*\Z", re.IGNORECASE)


def triggers(judge: Judge, node: Node, path: str) -> list[dict[str, str]]:
    found = []
    for item, place in judge.items(node, path, "triggers"):
        with suppress(Rejected):
            if (trigger := _Trigger(judge, item, place).read()) is not None:
                found.append(trigger)
    return found


class _Trigger:
    """One trigger: every key is read, so that one fault hides no other."""

    def __init__(self, judge: Judge, node: Node, path: str) -> None:
        self.judge = judge
        self.node = node
        self.path = path
        self.taken: dict[str, str] = {}
        self.rejected = False
        self.given: set[str] = set()

    def read(self) -> dict[str, str] | None:
        """Give the trigger's JSON form; None if it was rejected or never fires."""
        if self.judge.is_null(self.node):
            raise self.judge.reject(self.node, self.path, "expected a trigger, not an empty item")
        entries = self.judge.entries(self.node, self.path, "a mapping with action and condition")
        for entry in entries:
            self.given.add(entry.name)
            with suppress(Rejected):
                self._key(entry)
                continue
            self.rejected = True
        self._unknown(entries)
        self._complete()
        if self.rejected:
            return None
        if "condition" not in self.taken:
            message = "a trigger without a condition never fires, and is left out"
            self.judge.found.warn(self.node, self.path, message, f"add one of {', '.join(CONDITIONS)}")
            return None
        return self.taken

    def _key(self, entry: Entry) -> None:
        judge, node, path = self.judge, entry.value, entry.path
        value: str | None = None
        match entry.name:
            case "action":
                value = judge.choice(node, path, ACTIONS)
            case "condition":
                value = judge.choice(node, path, CONDITIONS)
            case "to" | "cc":
                value = self._line(entry, "mail addresses")
                self._addresses(entry, value)
            case "in_reply_to":
                value = self._line(entry, "a Message-ID")
            case "url":
                value = self._line(entry, "the address of a webhook")
                if value is not None and not _URL.match(value):
                    message = f"{quote(value)} is no address a webhook could go to"
                    judge.found.warn(node, path, message, "it begins with https://")
            case _:
                return
        self.taken.pop(entry.name, None)
        if value is not None:
            self.taken[entry.name] = value

    def _line(self, entry: Entry, wanted: str) -> str | None:
        """Give a text of one line: what goes into a mail's header or a URL must not begin another."""
        text = self.judge.text(entry.value, entry.path, wanted)
        if text is None:
            return None
        text = text.strip()
        if _CONTROL.search(text):
            message = f"{quote(text)} holds a line break or control character"
            raise self.judge.reject(entry.value, entry.path, message, "put it on one line")
        return text

    def _addresses(self, entry: Entry, text: str | None) -> None:
        if text is None:
            return
        try:
            addresses(text)
        except ValueError as error:
            hint = "write a@b, Name <a@b>, or ~user/list@lists.example.org, with commas between"
            self.judge.found.warn(entry.value, entry.path, f"no mail can be sent: {error}", hint)

    def _unknown(self, entries: list[Entry]) -> None:
        action = self.taken.get("action")
        known = _KEYS[action] if action else _KEYS["email"] | _KEYS["webhook"]
        for entry in entries:
            if entry.name not in known:
                self.judge.unknown(entry, known, f"{action} triggers" if action else "triggers")

    def _complete(self) -> None:
        """Check that the action is there, and has what it needs."""
        action = self.taken.get("action")
        if action is None:
            if "action" not in self.given or not self.rejected:
                self._missing("action", f"a trigger needs an action: {' or '.join(ACTIONS)}")
        elif action == "email" and not {"to", "cc"} & (self.taken.keys() | self._spoiled()):
            self._missing("to", "a mail needs 'to' or 'cc'")
        elif action == "webhook" and "url" not in self.taken.keys() | self._spoiled():
            self._missing("url", "a webhook needs 'url'")

    def _spoiled(self) -> set[str]:
        """Give the keys whose values may have been rejected."""
        return self.given if self.rejected else set()

    def _missing(self, key: str, message: str) -> None:
        self.judge.found.fault(self.node, child(self.path, key), message)
        self.rejected = True
