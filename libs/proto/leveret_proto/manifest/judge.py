"""What every rule needs: taking texts, flags, lists and mappings from nodes, and reporting what they are not."""

from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import NamedTuple, TypeVar, cast

from leveret_proto.manifest.diagnostics import Findings, Place, child, quote
from leveret_proto.manifest.guess import closest, did_you_mean
from leveret_proto.manifest.limits import Limits
from leveret_proto.manifest.nodes import Broken, Mapping, Node, Scalar, Sequence
from leveret_proto.manifest.scalars import TagError, Value, resolve

_T = TypeVar("_T", bound=str)


class Rejected(Exception):
    """A value that is of no use; its fault has been reported. Whoever holds the next value catches it."""


class Entry(NamedTuple):
    """One key of a mapping with its value and YAML path. `repeats` is the earlier key of the same name."""

    name: str
    key: Node
    value: Node
    path: str
    repeats: Node | None


class Judge:
    """Takes values out of nodes. All methods that give a value raise `Rejected` once they have reported a fault."""

    def __init__(self, limits: Limits, found: Findings) -> None:
        self.limits = limits
        self.found = found

    def reject(self, place: Place, path: str, message: str, hint: str = "") -> Rejected:
        """Report a fault; the caller raises what it gets."""
        self.found.fault(place, path, message, hint)
        return Rejected()

    def value(self, node: Node, path: str, wanted: str) -> Value:
        """Give what a scalar resolves to."""
        scalar = self._scalar(node, path, wanted)
        try:
            return resolve(scalar.text, scalar.tag, scalar.plain)
        except TagError as error:
            raise self.reject(node, path, f"{quote(scalar.text)} {error}", "leave the tag out") from error

    def text(self, node: Node, path: str, wanted: str = "a text") -> str | None:
        """Give a scalar's literal text, whatever its type (`3.10` stays `3.10`); None for null."""
        value = self.value(node, path, wanted)
        if value is None:
            return None
        scalar = cast(Scalar, node)
        return value if isinstance(value, str) else scalar.text

    def flag(self, node: Node, path: str) -> bool:
        """Give a boolean; null is false."""
        value = self.value(node, path, "true or false")
        if value is None or isinstance(value, bool):
            return bool(value)
        raise self.reject(node, path, f"expected true or false, not {quote(cast(Scalar, node).text)}")

    def choice(self, node: Node, path: str, choices: tuple[_T, ...]) -> _T | None:
        """Give one of `choices`; None for null."""
        text = self.text(node, path, f"one of {', '.join(choices)}")
        if text is None or text in choices:
            return cast(_T, text)
        hint = did_you_mean(closest(text, choices))
        raise self.reject(node, path, f"expected one of {', '.join(choices)}, not {quote(text)}", hint)

    def items(self, node: Node, path: str, wanted: str) -> Iterator[tuple[Node, str]]:
        """Give the items of a list with their paths; none for null."""
        if self.is_null(node):
            return
        if not isinstance(node, Sequence):
            raise self._unexpected(node, path, f"a list of {wanted}")
        for index, item in enumerate(node.items):
            yield item, child(path, index)

    def texts(self, node: Node, path: str, wanted: str) -> Iterator[tuple[str, Node, str]]:
        """Give the texts of a list, each with its node and path. Empty ones earn a warning and are left out."""
        for item, place in self.items(node, path, wanted):
            with suppress(Rejected):
                if text := self.text(item, place):
                    yield text, item, place
                else:
                    self.found.warn(item, place, "an empty item is left out", "remove it")

    def entries(self, node: Node, path: str, wanted: str) -> list[Entry]:
        """Give the entries of a mapping in the order in which they count: of two with one name, the later one.

        `<<` merges are followed where they stand, as builds.sr.ht's parser does. Repeated keys earn a warning.
        """
        if self.is_null(node):
            return []
        if not isinstance(node, Mapping):
            raise self._unexpected(node, path, wanted)
        entries: list[Entry] = []
        seen: dict[str, Node] = {}
        for key, value in node.pairs:
            with suppress(Rejected):
                if isinstance(key, Scalar) and key.text == "<<" and key.plain:
                    entries += self._merged(value, child(path, "<<"), wanted)
                    continue
                name = self.text(key, path, "a text as key") or ""
                entries.append(Entry(name, key, value, child(path, name), seen.get(name)))
                if (first := seen.setdefault(name, key)) is not key:
                    message = f"the key {quote(name)} is given twice; this later one counts"
                    self.found.warn(key, child(path, name), message, f"the first is in line {first.line}")
        return entries

    def _merged(self, node: Node, path: str, wanted: str) -> list[Entry]:
        sources = node.items if isinstance(node, Sequence) else [node]
        entries: list[Entry] = []
        for source in reversed(sources):  # of several merged mappings the first one counts
            if not isinstance(source, Mapping | Broken):
                raise self.reject(source, path, "'<<' takes a mapping, or a list of mappings")
            with suppress(Rejected):
                entries += self.entries(source, path.removesuffix("<<").removesuffix("."), wanted)
        return [entry._replace(repeats=None) for entry in entries]

    def unknown(self, entry: Entry, known: Collection[str], where: str) -> None:
        """Warn of a key that means nothing, with a guess at what was meant."""
        guess = did_you_mean(closest(entry.name, known)) or f"known are {', '.join(sorted(known))}"
        self.found.warn(entry.key, entry.path, f"{quote(entry.name)} is no key of {where}, and is ignored", guess)

    def is_null(self, node: Node) -> bool:
        """Tell whether a node is null, that is: absent."""
        if isinstance(node, Broken):
            raise Rejected
        if not isinstance(node, Scalar):
            return False
        try:
            return resolve(node.text, node.tag, node.plain) is None
        except TagError:
            return False

    def _scalar(self, node: Node, path: str, wanted: str) -> Scalar:
        if isinstance(node, Scalar):
            return node
        raise self._unexpected(node, path, wanted)

    def _unexpected(self, node: Node, path: str, wanted: str) -> Rejected:
        if isinstance(node, Broken):
            return Rejected()
        if isinstance(node, Scalar):
            return self.reject(node, path, f"expected {wanted}, not the text {quote(node.text)}")
        kind = "a list" if isinstance(node, Sequence) else "a mapping"
        return self.reject(node, path, f"expected {wanted}, not {kind}")
