"""From text to a tree of nodes that know where they stand. No tag is ever acted on, no alias ever copied.

Built from PyYAML's parse events, which do not recurse.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import yaml

from leveret_proto.manifest.diagnostics import Findings, quote
from leveret_proto.manifest.limits import Limits
from leveret_proto.manifest.loaders import DEFAULT_LOADER, Loader
from leveret_proto.manifest.scalars import is_known_tag
from leveret_proto.manifest.text import Position, Unreadable


@dataclass(slots=True, eq=False)
class Node:
    """What all nodes have: their place, tag, and their size and height once every alias is followed."""

    line: int
    column: int
    tag: str | None
    size: int = 1
    height: int = 0


@dataclass(slots=True, eq=False)
class Scalar(Node):
    text: str = ""
    plain: bool = False


@dataclass(slots=True, eq=False)
class Sequence(Node):
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Mapping(Node):
    pairs: list[tuple[Node, Node]] = field(default_factory=list)


class Broken(Node):
    """Stands where a fault has been reported already, so that nothing more is said about it."""


@dataclass(slots=True)
class _Frame:
    """An open collection."""

    node: Sequence | Mapping
    anchor: str | None
    key: Node | None = None

    def add(self, child: Node) -> None:
        self.node.size += child.size
        self.node.height = max(self.node.height, child.height + 1)
        if isinstance(self.node, Sequence):
            self.node.items.append(child)
        elif self.key is None:
            self.key = child
        else:
            self.node.pairs.append((self.key, child))
            self.key = None


@dataclass(slots=True)
class Documents:
    """The first document of a stream (None if there is none), and where the next one begins."""

    root: Node | None = None
    next: Position | None = None


def compose(
    text: str,
    limits: Limits,
    found: Findings,
    loader: type[Loader] = DEFAULT_LOADER,
    lost: Collection[str] = (),
) -> Documents:
    """Compose the first document of `text`, and look whether another follows.

    `lost` names anchors that may have been taken out of the text; nothing is said of aliases to them.

    Raises:
        yaml.MarkedYAMLError: at the first syntax fault of that document.
        Unreadable: if it nests too deep or holds too many nodes, aliases followed.
    """
    composer = _Composer(limits, found, lost)
    events = yaml.parse(text, Loader=loader)
    documents = Documents()
    for event in events:
        if isinstance(event, yaml.DocumentEndEvent):
            documents.root = composer.root
            break
        composer.take(event)
    documents.next = _next_document(events)
    return documents


def _next_document(events: Iterator[yaml.Event]) -> Position | None:
    """Give the place of a second document. It is not read, so it need not be sound (as with builds.sr.ht's parser)."""
    try:
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                return _place(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        return Position(mark.line + 1, mark.column + 1) if mark else None
    return None


def _place(event: yaml.Event) -> Position:
    mark = event.start_mark
    assert mark is not None  # both parsers mark every event
    return Position(mark.line + 1, mark.column + 1)


class _Composer:
    def __init__(self, limits: Limits, found: Findings, lost: Collection[str]) -> None:
        self.root: Node | None = None
        self._limits = limits
        self._found = found
        self._lost = lost
        self._stack: list[_Frame] = []
        self._anchors: dict[str, Node] = {}
        self._open_anchors: set[str] = set()

    def take(self, event: yaml.Event) -> None:
        line, column = place = _place(event)
        tag = getattr(event, "tag", None)
        if tag is not None and not is_known_tag(tag):
            self._found.warn(place, "", f"the tag {quote(tag)} means nothing here, and is ignored", "leave it out")
        if isinstance(event, yaml.ScalarEvent):
            tag = "tag:yaml.org,2002:str" if tag == "!" else tag
            plain = event.implicit[0] and tag is None
            self._finish(Scalar(line, column, tag, text=event.value, plain=plain), event.anchor)
        elif isinstance(event, yaml.AliasEvent):
            self._finish(self._alias(event.anchor or "", line, column), None)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._open(Sequence(line, column, event.tag), event.anchor)
        elif isinstance(event, yaml.MappingStartEvent):
            self._open(Mapping(line, column, event.tag), event.anchor)
        elif isinstance(event, yaml.CollectionEndEvent):
            frame = self._stack.pop()
            self._open_anchors.discard(frame.anchor or "")
            self._finish(frame.node, frame.anchor)

    def _open(self, node: Sequence | Mapping, anchor: str | None) -> None:
        self._stack.append(_Frame(node, anchor))
        self._check_depth(node, 0)
        if anchor:
            self._open_anchors.add(anchor)

    def _finish(self, node: Node, anchor: str | None) -> None:
        if anchor:
            self._anchors[anchor] = node
        if not self._stack:
            self.root = node
            return
        self._stack[-1].add(node)
        if self._stack[-1].node.size > self._limits.nodes:
            message = f"the manifest holds more than {self._limits.nodes} values once its aliases are followed"
            raise Unreadable(Position(node.line, node.column), message, "write it without nested aliases")

    def _alias(self, anchor: str, line: int, column: int) -> Node:
        place = Position(line, column)
        if anchor in self._open_anchors:
            self._found.fault(place, "", f"the alias {quote('*' + anchor)} stands inside what it repeats")
            return Broken(line, column, None)
        node = self._anchors.get(anchor)
        if node is None:
            if anchor not in self._lost:
                hint = "quote the text if no alias is meant"
                self._found.fault(place, "", f"there is no anchor {quote('&' + anchor)} above this alias", hint)
            return Broken(line, column, None)
        self._check_depth(Node(line, column, None), node.height)
        return node

    def _check_depth(self, node: Node, height: int) -> None:
        if len(self._stack) + height > self._limits.nesting:
            raise nested_too_deep(Position(node.line, node.column), self._limits.nesting)


def nested_too_deep(place: Position, limit: int) -> Unreadable:
    return Unreadable(place, f"lists and mappings nest deeper than {limit} levels", "no manifest needs that many")
